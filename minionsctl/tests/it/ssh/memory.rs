//! Memory of the proxy, whose peers send without limit.

use super::guest::SshGuest;
use super::programs::{noise, proxy_of};
use crate::exec::guest::feed;
use rustix::process::Pid;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::thread::JoinHandle;
use testkit::wait::until;

pub(super) const MIB: usize = 1024 * 1024;

/// Input that the proxy keeps for programs, in KiB (`INPUT_BUDGET`).
pub(super) const BUDGET: usize = 16 * 1024;

/// Returns the largest resident memory of a process so far, in KiB.
pub(super) fn peak(pid: Pid) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A program that prints its pid and does not read, whose client sends `len` bytes.
pub(super) struct Flood {
    pub(super) client: Child,
    pub(super) stdout: BufReader<ChildStdout>,
    pub(super) feeder: JoinHandle<()>,
    program: String,
    pub(super) proxy: Pid,
    /// Peak of the proxy's memory before the input, in KiB.
    pub(super) before: usize,
}

impl Flood {
    /// Waits until the proxy has kept as much as it may.
    pub(super) fn start(ssh: &SshGuest, script: &str, input: Vec<u8>) -> Self {
        let mut command = ssh.ssh(&["web-1.minions", "--", &format!("echo $$; {script}")]);
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(client.stdout.take().unwrap());
        let mut program = String::new();
        stdout.read_line(&mut program).unwrap();
        let proxy = proxy_of(client.id());
        let before = peak(proxy);
        let mut stdin = client.stdin.take().unwrap();
        // The client of one test is killed meanwhile.
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        until("the proxy keeps input", || peak(proxy) > before + BUDGET * 7 / 8);
        Self { client, stdout, feeder, program: program.trim().into(), proxy, before }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_the_client_reads_late_does_not_accumulate() {
    let ssh = SshGuest::start().await;
    let mut command =
        ssh.ssh(&["web-1.minions", "--", "head -c 200000000 /dev/zero | tee /dev/stderr; cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 1];
    stdout.read_exact(&mut first).unwrap();
    let proxy = proxy_of(child.id());
    let before = peak(proxy);
    let mut left = 200_000_000 - 1;
    let mut buffer = vec![0; MIB];
    while left > 0 {
        left -= stdout.read(&mut buffer).unwrap();
    }
    let after = peak(proxy);
    assert!(after < before + 48 * 1024, "{before} KiB, then {after} KiB");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_the_program_reads_late_does_not_accumulate() {
    let ssh = SshGuest::start().await;
    let fifo = ssh.guest.fifo("go");
    let input = noise(160 * MIB);
    let expected: String =
        Sha256::digest(&input).iter().map(|byte| format!("{byte:02x}")).collect();
    let script = format!("read go < {}; sha256sum; read end < {0}", fifo.display());
    let mut flood = Flood::start(&ssh, &script, input);
    feed(&fifo, "go\n");
    let mut hash = String::new();
    flood.stdout.read_line(&mut hash).unwrap();
    assert!(hash.starts_with(&expected), "{hash}");
    // A buffer that grows has twice its length, and a copy while it grows.
    let (before, after) = (flood.before, peak(flood.proxy));
    assert!(after < before + 4 * BUDGET, "{before} KiB, then {after} KiB");
    feed(&fifo, "end\n");
    assert!(flood.client.wait().unwrap().success());
    flood.feeder.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_while_its_input_waits_ends_its_program() {
    let ssh = SshGuest::start().await;
    let mut flood = Flood::start(&ssh, "exec sleep 1000", noise(64 * MIB));
    let process = format!("/proc/{}", flood.program);
    assert!(Path::new(&process).exists());
    flood.client.kill().unwrap();
    until("the program has ended", || !Path::new(&process).exists());
    flood.client.wait().unwrap();
    flood.feeder.join().unwrap();
}
