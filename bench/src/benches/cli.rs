//! `minionsctl health` as a whole process, compared with curl and the same URL.

use std::process::Command;

use crate::{
    figures::{
        clock::{microseconds, timed},
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::{RoundSeries, quantile},
    },
    programs::{
        Effort, MeasuredPrograms,
        foreground::succeed,
        site::{self, MeasuredDaemon, VM},
    },
};

pub(crate) fn run(programs: &MeasuredPrograms, effort: Effort) -> anyhow::Result<BenchReport> {
    let dir = site::directory()?;
    let _responder = site::responder(programs, dir.path(), 1)?;
    let daemon = MeasuredDaemon::ready(programs, dir.path())?;
    let mut ours = Command::new(&programs.minionsctl);
    ours.args(["--host", &format!("unix://{}", daemon.socket.display()), "health", VM]);
    let mut theirs = Command::new("curl");
    theirs.args(["--silent", "--show-error", "--fail", "--unix-socket"]).arg(&daemon.socket);
    theirs.arg(format!("http://localhost/vms/{VM}/health"));
    let times = if effort.is_quick { 20 } else { 100 };
    let (mut ours_us, mut theirs_us) = (RoundSeries::default(), RoundSeries::default());
    for _ in 0..effort.rounds {
        let (mut ours_round, mut theirs_round) = (Vec::new(), Vec::new());
        for _ in 0..times {
            ours_round.push(wall(&mut ours)?);
            theirs_round.push(wall(&mut theirs)?);
        }
        ours_us.push(quantile(&ours_round, 0.5));
        theirs_us.push(quantile(&theirs_round, 0.5));
    }
    let row = ReportRow {
        case: "health, the whole process".into(),
        unit: FigureUnit::Microseconds,
        ours: ours_us,
        peer: Some(("curl", theirs_us)),
        aim: Some(FigureAim::RatioAtMost(1.2)),
    };
    Ok(BenchReport { bench: "cli", rows: vec![row] })
}

/// Runs `command` and returns the time from its start to its end, in microseconds.
fn wall(command: &mut Command) -> anyhow::Result<f64> {
    Ok(microseconds(timed(|| succeed(command))?))
}
