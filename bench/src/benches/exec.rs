//! Execution of `true` through REST and the agent, all on this host.

use std::process::Command;

use anyhow::ensure;
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    clients::rest::RestClient,
    contenders::{qemu_ga::QemuGa, ssh::SshConnection},
    figures::{
        clock::p50,
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{
        Effort, MeasuredPrograms,
        foreground::succeed,
        site::{self, MeasuredDaemon, VM},
    },
};

/// An absolute path, because each contender would search `PATH` in its own way.
pub(super) const PROGRAM: &str = "/bin/true";

pub(crate) fn run(programs: &MeasuredPrograms, effort: Effort) -> anyhow::Result<BenchReport> {
    let dir = site::directory()?;
    let _agent = site::agent(programs, dir.path())?;
    let daemon = MeasuredDaemon::ready(programs, dir.path())?;
    let mut qemu_ga = QemuGa::start(dir.path())?;
    let mut qemu_ga_client = qemu_ga.connect_soon()?;
    let ssh = SshConnection::start(dir.path())?;
    let times = if effort.is_quick { 20 } else { 200 };
    let [mut ours, mut spawned, mut qga, mut sshd] = [const { Vec::new() }; 4];
    for _ in 0..effort.rounds {
        // A connection that was idle during the turns of the others might have been closed.
        let rest = RestClient::new(&daemon.socket)?;
        ours.push(p50(times, || exec(&rest))?);
        spawned.push(p50(times, spawn)?);
        qga.push(p50(times, || qemu_ga_client.exec(PROGRAM))?);
        sshd.push(p50(times / 10, || succeed(&mut ssh.command(PROGRAM)))?);
    }
    let row = |peer, theirs: Vec<f64>, most| ReportRow {
        case: "true, p50".into(),
        unit: FigureUnit::Microseconds,
        ours: ours.iter().copied().collect::<RoundSeries>(),
        peer: Some((peer, theirs.into_iter().collect())),
        aim: Some(FigureAim::RatioAtMost(most)),
    };
    let rows = vec![
        row("posix_spawn + wait", spawned, 1.3),
        row("qemu-ga", qga, 0.6),
        row("ssh", sshd, 0.1),
    ];
    Ok(BenchReport { bench: "exec", rows })
}

/// Executes [`PROGRAM`] over `rest` and checks that it succeeded.
pub(super) fn exec(rest: &RestClient) -> anyhow::Result<()> {
    let program = json!({ "command": PROGRAM });
    let result = rest.post(&format!("/vms/{VM}/exec"), &program, StatusCode::OK)?;
    ensure!(result["exit_code"] == 0, "{result}");
    Ok(())
}

fn spawn() -> anyhow::Result<()> {
    succeed(&mut Command::new(PROGRAM))
}
