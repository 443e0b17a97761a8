//! Gigabytes of output from a program and of input to a program, all on this host.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{
    Options, Programs,
    clock::timed,
    measure::Series,
    process::Usage,
    report::{Aim, Report, Row, Unit},
    site::{self, Daemon, VM},
    socat,
    ssh::Ssh,
    websocket::Program,
};

/// Script that reads its input to the end and discards it.
const SINK: &str = "cat >/dev/null";

/// Allowed growth of minionsd or the agent during the transfer of gigabytes, in megabytes.
const FLAT_MB: f64 = 8.0;

/// Rates of all four contenders in one direction.
#[derive(Debug, Default)]
struct Way {
    websocket: Series,
    cli: Series,
    ssh: Series,
    raw: Series,
}

/// Environment shared by all measurements.
struct Ground<'a> {
    programs: &'a Programs,
    dir: &'a Path,
    daemon: &'a Daemon,
    ssh: &'a Ssh,
    bytes: u64,
}

pub(crate) fn run(programs: &Programs, options: &Options) -> anyhow::Result<Report> {
    let dir = site::directory()?;
    let agent = site::agent(programs, dir.path())?;
    let daemon = Daemon::ready(programs, dir.path())?;
    let ssh = Ssh::start(dir.path())?;
    let bytes = if options.quick { 64 << 20 } else { 2 << 30 };
    let ground = Ground { programs, dir: dir.path(), daemon: &daemon, ssh: &ssh, bytes };
    let pids = [daemon.program.pid(), agent.pid()];
    let before = rss_mb(pids)?;
    let (mut down, mut up) = (Way::default(), Way::default());
    let mut grown = [0.0; 2];
    for _ in 0..options.rounds {
        ground.down(&mut down)?;
        ground.up(&mut up)?;
        for (most, (now, before)) in grown.iter_mut().zip(rss_mb(pids)?.into_iter().zip(before)) {
            *most = f64::max(*most, now - before);
        }
    }
    let mut rows = down.rows("guest → client");
    rows.extend(up.rows("client → guest"));
    for (name, grown) in ["minionsd", "agent"].into_iter().zip(grown) {
        rows.push(Row {
            case: format!("{name} grows by"),
            unit: Unit::Megabytes,
            ours: [grown].into_iter().collect(),
            peer: None,
            aim: Some(Aim::AtMost(FLAT_MB)),
        });
    }
    Ok(Report { bench: "stream", rows })
}

fn rss_mb([daemon, agent]: [u32; 2]) -> anyhow::Result<[f64; 2]> {
    // The agent without its children: these are the programs that it runs.
    Ok([Usage::of(daemon)?.rss_mb, Usage::alone(agent)?.rss_mb])
}

impl Ground<'_> {
    fn down(&self, way: &mut Way) -> anyhow::Result<()> {
        let Self { dir, bytes, .. } = *self;
        let source = format!("head -c {bytes} /dev/zero");
        way.websocket.push(self.rate(|| {
            let received = Program::start(&self.daemon.socket, &source, false)?.drain()?;
            ensure!(received == bytes, "received {received} of {bytes} bytes");
            Ok(())
        })?);
        let mut cli = self.cli(&["exec", VM, "--", "sh", "-c", &source]);
        way.cli.push(self.rate(|| count(&mut cli, bytes))?);
        let mut ssh = self.ssh.command(&source);
        way.ssh.push(self.rate(|| count(&mut ssh, bytes))?);
        let socket = dir.join("down.sock");
        let _server =
            socat::serve(&socket, socat::Way::FromScript, &source, &dir.join("socat.log"))?;
        way.raw.push(self.rate(|| count(&mut socat::read(&socket), bytes))?);
        Ok(())
    }

    fn up(&self, way: &mut Way) -> anyhow::Result<()> {
        let Self { dir, bytes, .. } = *self;
        way.websocket
            .push(self.rate(|| Program::start(&self.daemon.socket, SINK, true)?.feed(bytes))?);
        let mut cli = self.cli(&["exec", "-i", VM, "--", "sh", "-c", SINK]);
        way.cli.push(self.rate(|| feed(&mut cli, bytes))?);
        way.ssh.push(self.rate(|| feed(&mut self.ssh.command(SINK), bytes))?);
        let socket = dir.join("up.sock");
        let _server = socat::serve(&socket, socat::Way::ToScript, SINK, &dir.join("socat.log"))?;
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
    ensure!(child.wait()?.success(), "`{}` failed", crate::command::line(command));
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
    ensure!(
        status.success() && source_status.success(),
        "`{}` failed",
        crate::command::line(command)
    );
    Ok(())
}

impl Way {
    fn rows(self, way: &str) -> Vec<Row> {
        let Self { websocket, cli, ssh, raw } = self;
        let row = |by: &str, ours: &Series, peer: &'static str, theirs: &Series, least| Row {
            case: format!("{way}, {by}"),
            unit: Unit::MegabytesPerSecond,
            ours: ours.clone(),
            peer: Some((peer, theirs.clone())),
            aim: Some(Aim::RatioAtLeast(least)),
        };
        vec![
            row("WebSocket", &websocket, "ssh", &ssh, 2.0),
            row("WebSocket", &websocket, "raw", &raw, 0.8),
            row("minionsctl", &cli, "ssh", &ssh, 2.0),
            row("minionsctl", &cli, "raw", &raw, 0.8),
        ]
    }
}
