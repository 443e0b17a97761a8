//! `minionsctl health` as a whole process, compared with curl and the same URL.

use std::process::{Command, Stdio};

use anyhow::ensure;

use super::{
    Options, Programs,
    clock::{microseconds, timed},
    measure::{Series, quantile},
    report::{Aim, Report, Row, Unit},
    site::{self, Daemon, VM},
};

pub(crate) fn run(programs: &Programs, options: &Options) -> anyhow::Result<Report> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), 1)?;
    let daemon = Daemon::ready(programs, dir.path())?;
    let mut ours = Command::new(&programs.minionsctl);
    ours.args(["--host", &format!("unix://{}", daemon.socket.display()), "health", VM]);
    let mut theirs = Command::new("curl");
    theirs.args(["--silent", "--show-error", "--fail", "--unix-socket"]).arg(&daemon.socket);
    theirs.arg(format!("http://localhost/vms/{VM}/health"));
    let times = if options.quick { 20 } else { 100 };
    let (mut ours_us, mut theirs_us) = (Series::default(), Series::default());
    for _ in 0..options.rounds {
        let (mut ours_round, mut theirs_round) = (Vec::new(), Vec::new());
        for _ in 0..times {
            ours_round.push(wall(&mut ours)?);
            theirs_round.push(wall(&mut theirs)?);
        }
        ours_us.push(quantile(&ours_round, 0.5));
        theirs_us.push(quantile(&theirs_round, 0.5));
    }
    let row = Row {
        case: "health, the whole process".into(),
        unit: Unit::Microseconds,
        ours: ours_us,
        peer: Some(("curl", theirs_us)),
        aim: Some(Aim::RatioAtMost(1.2)),
    };
    Ok(Report { bench: "cli", rows: vec![row] })
}

/// Runs `command` and returns the time from its start to its end, in microseconds.
fn wall(command: &mut Command) -> anyhow::Result<f64> {
    let took = timed(|| {
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`{}` failed", crate::command::line(command));
        Ok(())
    })?;
    Ok(microseconds(took))
}
