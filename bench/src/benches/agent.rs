//! The agent as a program in a guest: its size, its memory, and its start time.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use super::exec;
use crate::{
    clients::{rest::RestClient, wire::WireClient},
    contenders::qemu_ga::{self, QemuGa},
    figures::{
        clock::milliseconds,
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{MeasuredPrograms, WorkAmount, usage::ProcessUsage},
    site::{self, MeasuredDaemon},
};

/// Deadline for the first connection after the start.
const DEADLINE: Duration = Duration::from_secs(30);

/// Figures of one agent.
#[derive(Debug, Default)]
struct AgentFigures {
    size_mb: RoundSeries,
    idle_mb: RoundSeries,
    used_mb: RoundSeries,
    start_ms: RoundSeries,
}

pub(crate) fn run(programs: &MeasuredPrograms, amount: WorkAmount) -> anyhow::Result<BenchReport> {
    let (mut ours, mut theirs) = (AgentFigures::default(), AgentFigures::default());
    let execs = if amount.is_quick { 50 } else { 1000 };
    for _ in 0..amount.rounds {
        measure_ours(programs, execs, &mut ours)?;
        measure_qemu_ga(execs, &mut theirs)?;
    }
    let row = |case: &str, unit, ours, theirs, most| ReportRow {
        case: case.into(),
        unit,
        ours,
        peer: Some(("qemu-ga", theirs)),
        aim: Some(FigureAim::AtMost(most)),
    };
    let rows = vec![
        row(
            "size (qemu-ga's without its libraries)",
            FigureUnit::Megabytes,
            ours.size_mb,
            theirs.size_mb,
            1.5,
        ),
        row("RSS, idle", FigureUnit::Megabytes, ours.idle_mb, theirs.idle_mb, 2.5),
        row("RSS after 1,000 execs", FigureUnit::Megabytes, ours.used_mb, theirs.used_mb, 2.5),
        row(
            "start to first answer",
            FigureUnit::Milliseconds,
            ours.start_ms,
            theirs.start_ms,
            10.0,
        ),
    ];
    Ok(BenchReport { bench: "agent", rows })
}

fn measure_ours(
    programs: &MeasuredPrograms,
    execs: u32,
    figures: &mut AgentFigures,
) -> anyhow::Result<()> {
    let dir = site::directory()?;
    let socket = site::vm_socket(dir.path());
    let started = Instant::now();
    let agent = site::start_agent(programs, dir.path())?;
    let mut connection = until_connected(started, || {
        let stream = UnixStream::connect(&socket).ok()?;
        WireClient::handshake(stream).ok()
    })?;
    connection.ask_health()?;
    figures.start_ms.push(milliseconds(started.elapsed()));
    figures.size_mb.push(size_mb(&programs.agent)?);
    figures.idle_mb.push(ProcessUsage::of(agent.pid())?.rss_mb);
    let daemon = MeasuredDaemon::ready(programs, dir.path(), 1)?;
    let rest = RestClient::new(&daemon.socket)?;
    for _ in 0..execs {
        exec::exec(&rest)?;
    }
    figures.used_mb.push(ProcessUsage::of(agent.pid())?.rss_mb);
    Ok(())
}

fn measure_qemu_ga(execs: u32, figures: &mut AgentFigures) -> anyhow::Result<()> {
    let dir = site::directory()?;
    let started = Instant::now();
    let agent = QemuGa::start(dir.path())?;
    let mut client = until_connected(started, || agent.connect().ok())?;
    client.ping()?;
    figures.start_ms.push(milliseconds(started.elapsed()));
    figures.size_mb.push(size_mb(Path::new(qemu_ga::PROGRAM))?);
    figures.idle_mb.push(ProcessUsage::of(agent.program.pid())?.rss_mb);
    for _ in 0..execs {
        client.exec(exec::PROGRAM)?;
    }
    figures.used_mb.push(ProcessUsage::of(agent.program.pid())?.rss_mb);
    Ok(())
}

/// Tries to connect until it succeeds, with pauses too short to affect the figure but long enough to let
/// others run.
fn until_connected<T>(
    started: Instant,
    mut connect: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    loop {
        if let Some(connection) = connect() {
            return Ok(connection);
        }
        ensure!(started.elapsed() < DEADLINE, "the agent does not listen");
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn size_mb(program: &Path) -> anyhow::Result<f64> {
    let size = fs::metadata(program).with_context(|| format!("no {}", program.display()))?.len();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let size = size as f64;
    Ok(size / 1e6)
}
