//! Execution of `true` through REST and the agent, all on this host.

use std::process::{Command, Stdio};

use anyhow::ensure;
use serde_json::json;

use super::{
    Options, Programs,
    clock::p50,
    keep_alive::KeepAlive,
    measure::Series,
    qemu_ga::QemuGa,
    report::{Aim, Report, Row, Unit},
    site::{self, Daemon, VM},
    ssh::Ssh,
};

/// An absolute path, because each contender would search `PATH` in its own way.
pub(crate) const PROGRAM: &str = "/bin/true";

pub(crate) fn run(programs: &Programs, options: &Options) -> anyhow::Result<Report> {
    let dir = site::directory()?;
    let _agent = site::agent(programs, dir.path())?;
    let daemon = Daemon::ready(programs, dir.path())?;
    let mut qemu_ga = QemuGa::start(dir.path())?;
    let mut qemu_ga_client = qemu_ga.connect_soon()?;
    let ssh = Ssh::start(dir.path())?;
    let times = if options.quick { 20 } else { 200 };
    let [mut ours, mut spawned, mut qga, mut sshd] = [const { Vec::new() }; 4];
    for _ in 0..options.rounds {
        // A connection that was idle during the turns of the others might have been closed.
        let mut rest = KeepAlive::unix(&daemon.socket)?;
        ours.push(p50(times, || exec(&mut rest))?);
        spawned.push(p50(times, spawn)?);
        qga.push(p50(times, || qemu_ga_client.exec(PROGRAM))?);
        sshd.push(p50(times / 10, || succeed(&mut ssh.command(PROGRAM)))?);
    }
    let row = |peer, theirs: Vec<f64>, most| Row {
        case: "true, p50".into(),
        unit: Unit::Microseconds,
        ours: ours.iter().copied().collect::<Series>(),
        peer: Some((peer, theirs.into_iter().collect())),
        aim: Some(Aim::RatioAtMost(most)),
    };
    let rows = vec![
        row("posix_spawn + wait", spawned, 1.3),
        row("qemu-ga", qga, 0.6),
        row("ssh", sshd, 0.1),
    ];
    Ok(Report { bench: "exec", rows })
}

/// Executes [`PROGRAM`] over `rest` and checks that it succeeded.
pub(crate) fn exec(rest: &mut KeepAlive<std::os::unix::net::UnixStream>) -> anyhow::Result<()> {
    let result = rest.post(&format!("/vms/{VM}/exec"), &json!({ "command": PROGRAM }))?;
    ensure!(result["exit_code"] == 0, "{result}");
    Ok(())
}

fn spawn() -> anyhow::Result<()> {
    succeed(&mut Command::new(PROGRAM))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "`{}` failed", crate::command::line(command));
    Ok(())
}
