//! A real VM: the time that minionsd and the agent add to the path through VMM and guest.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use serde_json::json;
use testkit::rig::{Artifacts, Vm, VmConfig};

use super::exec::{self, PROGRAM};
use crate::{
    clients::rest::RestClient,
    figures::{
        clock::p50,
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{
        Effort, MeasuredPrograms,
        site::{self, MeasuredDaemon, VM},
    },
};

const AGENT_PORT: u32 = 1024;
const ECHO_PORT: u32 = 5000;

/// Size of an echoed message in bytes: that of a health reply with its prefix.
const ECHOED: usize = 360;

/// Deadline for a boot, which takes three seconds; long enough for a very busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn run(programs: &MeasuredPrograms, effort: Effort) -> anyhow::Result<BenchReport> {
    let dir = site::directory()?;
    let mut vm = Vm::boot(&Artifacts::locate()?, VmConfig::new(VM, dir.path()))?;
    vm.wait_for_port(AGENT_PORT, BOOT_TIMEOUT)?;
    let daemon = MeasuredDaemon::ready(programs, dir.path())?;
    let rest = RestClient::new(&daemon.socket)?;
    let echo = json!({ "command": "vsock-probe", "args": ["echo", ECHO_PORT.to_string()] });
    start(&rest, echo)?;
    vm.wait_for_port(ECHO_PORT, BOOT_TIMEOUT)?;
    let mut echo = vm.connect(ECHO_PORT)?;
    let (times, spawns) = if effort.is_quick { (50, 5) } else { (500, 50) };
    let [mut health_us, mut echo_us, mut exec_us, mut spawn_us] = [const { Vec::new() }; 4];
    for _ in 0..effort.rounds {
        health_us.push(p50(times, || rest.get(&format!("/vms/{VM}/health")).map(drop))?);
        echo_us.push(p50(times, || echoed(&mut echo))?);
        exec_us.push(p50(spawns, || exec::exec(&rest))?);
        spawn_us.push(spawned_inside(&rest, spawns)?);
    }
    let [health_us, echo_us, exec_us, spawn_us] = [health_us, echo_us, exec_us, spawn_us]
        .map(|samples| samples.into_iter().collect::<RoundSeries>());
    let row = |case: &str, ours, peer, theirs, most| ReportRow {
        case: case.into(),
        unit: FigureUnit::Microseconds,
        ours,
        peer: Some((peer, theirs)),
        aim: Some(FigureAim::RatioAtMost(most)),
    };
    let floor = spawn_us.plus(&echo_us);
    let rows = vec![
        row("health over REST, p50", health_us, "vsock echo", echo_us, 1.5),
        row("true over REST, p50", exec_us, "spawn + echo", floor, 1.15),
    ];
    Ok(BenchReport { bench: "vm", rows })
}

/// Starts a program without waiting for its end.
fn start(rest: &RestClient, mut program: serde_json::Value) -> anyhow::Result<()> {
    program["detach"] = true.into();
    rest.post(&format!("/vms/{VM}/exec"), &program, StatusCode::ACCEPTED).map(drop)
}

fn echoed(stream: &mut UnixStream) -> anyhow::Result<()> {
    let mut bytes = [b'x'; ECHOED];
    stream.write_all(&bytes)?;
    stream.read_exact(&mut bytes)?;
    Ok(())
}

/// Returns the time of a spawn as measured by a program in the guest, in microseconds; the host does not
/// affect it.
fn spawned_inside(rest: &RestClient, times: u32) -> anyhow::Result<f64> {
    let program = json!({
        "command": "vsock-probe",
        "args": ["spawn", times.to_string(), PROGRAM],
    });
    let result = rest.post(&format!("/vms/{VM}/exec"), &program, StatusCode::OK)?;
    ensure!(result["exit_code"] == 0, "{result}");
    let output = result["stdout"].as_str().unwrap_or_default();
    output.trim().parse().with_context(|| format!("the guest printed {output:?}"))
}
