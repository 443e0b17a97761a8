//! A reset of the guest while connections of a forward are idle: all end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};

use super::guest::{BOOT, ClientGuest, VM};
use crate::command;

const CONNECTIONS: usize = 20;

/// Port of the echo server in `servers.py`.
const ECHO: &str = "7005";

/// Time after the VM is ready again within which every connection must have ended.
const GRACE: Duration = Duration::from_secs(1);

/// `minionsctl forward`, ended when dropped.
struct ForwardProcess(Child);

impl Drop for ForwardProcess {
    fn drop(&mut self) {
        // Both fail only if the process has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn check(guest: &mut ClientGuest) -> anyhow::Result<String> {
    guest.start_servers()?;
    let (_forward, address) = forward(guest)?;
    let streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| open(&address)).collect::<anyhow::Result<_>>()?;
    let boot_id = guest.shell("cat /proc/sys/kernel/random/boot_id")?;

    let start = Instant::now();
    guest.vm.reset()?;
    let ends: Vec<_> = streams
        .into_iter()
        .map(|stream| thread::spawn(move || wait_for_end(stream).then(|| start.elapsed())))
        .collect();
    let limit = BOOT.as_secs().to_string();
    let mut wait = guest.ctl();
    wait.args(["wait", VM, "--rebooted-since", &boot_id, "--timeout", &limit]);
    command::run(&mut wait)?;
    let ready = start.elapsed();
    let agent = agent_start(guest, start)?;
    let ends: Vec<Option<Duration>> = ends
        .into_iter()
        .map(|end| end.join().map_err(|_| anyhow!("a reader panicked")))
        .collect::<anyhow::Result<_>>()?;
    let ended: Vec<Duration> = ends.iter().copied().flatten().collect();
    let open = CONNECTIONS - ended.len();
    let first = ended.iter().min().map_or(0.0, Duration::as_secs_f64);
    let last = ended.iter().max().map_or(0.0, Duration::as_secs_f64);
    let figures = format!(
        "{CONNECTIONS} idle connections ended {first:.1} to {last:.1} s after the reset, \
         agent up after {agent:.1} s, VM ready after {:.1} s,",
        ready.as_secs_f64()
    );
    ensure!(open == 0, "{open} connections are still open {:?} after the reset; {figures}", BOOT);
    ensure!(last <= (ready + GRACE).as_secs_f64(), "too late: {figures}");
    Ok(figures)
}

/// Returns the seconds from `start` until the agent's service was active in the guest, by the guest's clock.
fn agent_start(guest: &ClientGuest, start: Instant) -> anyhow::Result<f64> {
    let script = "systemctl show -P ActiveEnterTimestampMonotonic minions-agent; cat /proc/uptime";
    let output = guest.shell(script)?;
    let now = start.elapsed().as_secs_f64();
    let mut words = output.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(active)), Some(Ok(uptime))) = (words.next(), words.next()) else {
        bail!("not two times: {output:?}")
    };
    Ok(now - uptime + active / 1e6)
}

/// Starts a forward to the echo server, and returns its address.
fn forward(guest: &ClientGuest) -> anyhow::Result<(ForwardProcess, String)> {
    let mut command = guest.ctl();
    command.args(["-o", "json", "forward", VM, &format!("0:{ECHO}")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().context("minionsctl has no output")?;
    let forward = ForwardProcess(child);
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let json: serde_json::Value =
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))?;
    let address = json["listen"].as_str().context("no address in the output")?;
    Ok((forward, address.to_owned()))
}

/// Opens a connection, and sends one byte through it and back.
fn open(address: &str) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(BOOT))?;
    stream.write_all(b"x")?;
    let mut byte = [0];
    match stream.read(&mut byte)? {
        1 => Ok(stream),
        _ => bail!("the echo server closed a connection"),
    }
}

/// Waits until the peer closes or resets the connection. Returns false if it is still open after [`BOOT`].
fn wait_for_end(mut stream: TcpStream) -> bool {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}
