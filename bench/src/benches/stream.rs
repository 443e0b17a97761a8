//! Gigabytes of output from a program and of input to a program, all on this host.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::growth::MemoryGrowth;
use crate::{
    clients::exec_stream::StreamedProgram,
    contenders::{
        socat::{self, SocatDirection},
        ssh::SshConnection,
    },
    figures::{
        clock::timed,
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{MeasuredPrograms, WorkAmount},
    site::{self, MeasuredDaemon, VM},
};

/// Script that reads its input to the end and discards it.
const SINK: &str = "cat >/dev/null";

/// Rates of all four contenders in one direction.
#[derive(Debug, Default)]
struct DirectionRates {
    websocket: RoundSeries,
    cli: RoundSeries,
    ssh: RoundSeries,
    raw: RoundSeries,
}

/// Environment shared by all measurements.
struct StreamSetup<'a> {
    programs: &'a MeasuredPrograms,
    dir: &'a Path,
    daemon: &'a MeasuredDaemon,
    ssh: &'a SshConnection,
    bytes: u64,
}

pub(crate) fn run(programs: &MeasuredPrograms, amount: WorkAmount) -> anyhow::Result<BenchReport> {
    let dir = site::directory()?;
    let agent = site::agent(programs, dir.path())?;
    let daemon = MeasuredDaemon::ready(programs, dir.path(), 1)?;
    let ssh = SshConnection::start(dir.path())?;
    let bytes = if amount.is_quick { 64 << 20 } else { 2 << 30 };
    let ground = StreamSetup { programs, dir: dir.path(), daemon: &daemon, ssh: &ssh, bytes };
    let mut growth = MemoryGrowth::begin(daemon.program.pid(), agent.pid())?;
    let (mut down, mut up) = (DirectionRates::default(), DirectionRates::default());
    for _ in 0..amount.rounds {
        ground.down(&mut down)?;
        ground.up(&mut up)?;
        growth.measure()?;
    }
    let mut rows = down.rows("guest → client");
    rows.extend(up.rows("client → guest"));
    rows.extend(growth.rows());
    Ok(BenchReport { bench: "stream", rows })
}

impl StreamSetup<'_> {
    fn down(&self, way: &mut DirectionRates) -> anyhow::Result<()> {
        let Self { dir, bytes, .. } = *self;
        let source = format!("head -c {bytes} /dev/zero");
        way.websocket.push(self.rate(|| {
            let received =
                StreamedProgram::start(&self.daemon.socket, VM, &source, false)?.drain()?;
            ensure!(received == bytes, "received {received} of {bytes} bytes");
            Ok(())
        })?);
        let mut cli = self.cli(&["exec", VM, "--", "sh", "-c", &source]);
        way.cli.push(self.rate(|| count(&mut cli, bytes))?);
        let mut ssh = self.ssh.command(&source);
        way.ssh.push(self.rate(|| count(&mut ssh, bytes))?);
        let socket = dir.join("down.sock");
        let _server =
            socat::serve(&socket, SocatDirection::FromScript, &source, &dir.join("socat.log"))?;
        way.raw.push(self.rate(|| count(&mut socat::read(&socket), bytes))?);
        Ok(())
    }

    fn up(&self, way: &mut DirectionRates) -> anyhow::Result<()> {
        let Self { dir, bytes, .. } = *self;
        way.websocket.push(
            self.rate(|| StreamedProgram::start(&self.daemon.socket, VM, SINK, true)?.feed(bytes))?,
        );
        let mut cli = self.cli(&["exec", "-i", VM, "--", "sh", "-c", SINK]);
        way.cli.push(self.rate(|| feed(&mut cli, bytes))?);
        way.ssh.push(self.rate(|| feed(&mut self.ssh.command(SINK), bytes))?);
        let socket = dir.join("up.sock");
        let _server =
            socat::serve(&socket, SocatDirection::ToScript, SINK, &dir.join("socat.log"))?;
        way.raw.push(self.rate(|| feed(&mut socat::write(&socket), bytes))?);
        Ok(())
    }

    fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.minionsctl);
        command.arg("--host").arg(format!("unix://{}", self.daemon.socket.display()));
        command.args(arguments);
        command
    }

    /// Runs `work` and returns its rate in MB/s.
    fn rate(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a round number of bytes")]
        let megabytes = self.bytes as f64 / 1e6;
        Ok(megabytes / timed(work)?.as_secs_f64())
    }
}

/// Runs `command` and checks that its output has the length `bytes`.
fn count(command: &mut Command, bytes: u64) -> anyhow::Result<()> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("no pipe from the command")?;
    let (mut received, mut chunk) = (0, vec![0; 64 * 1024]);
    loop {
        match std::io::Read::read(&mut output, &mut chunk)? {
            0 => break,
            len => received += len as u64,
        }
    }
    ensure!(child.wait()?.success(), "{command:?} failed");
    ensure!(received == bytes, "received {received} of {bytes} bytes");
    Ok(())
}

/// Runs `command` with an input of `bytes` bytes.
fn feed(command: &mut Command, bytes: u64) -> anyhow::Result<()> {
    let mut head = Command::new("head");
    head.args(["-c", &bytes.to_string(), "/dev/zero"]).stdout(Stdio::piped());
    let mut source = head.spawn()?;
    let input = source.stdout.take().context("no pipe from head")?;
    let status = command.stdin(input).stdout(Stdio::null()).status()?;
    let source_status = source.wait()?;
    ensure!(status.success() && source_status.success(), "{command:?} failed");
    Ok(())
}

impl DirectionRates {
    fn rows(self, way: &str) -> Vec<ReportRow> {
        let Self { websocket, cli, ssh, raw } = self;
        let row =
            |by: &str, ours: &RoundSeries, peer: &'static str, theirs: &RoundSeries, least| {
                ReportRow {
                    case: format!("{way}, {by}"),
                    unit: FigureUnit::MegabytesPerSecond,
                    ours: ours.clone(),
                    peer: Some((peer, theirs.clone())),
                    aim: Some(FigureAim::RatioAtLeast(least)),
                }
            };
        vec![
            row("WebSocket", &websocket, "ssh", &ssh, 2.0),
            row("WebSocket", &websocket, "raw", &raw, 0.8),
            row("minionsctl", &cli, "ssh", &ssh, 2.0),
            row("minionsctl", &cli, "raw", &raw, 0.8),
        ]
    }
}
