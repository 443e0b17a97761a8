//! Programs that need a real kernel: a VM under QEMU with AF_VSOCK, and minionsd in a separate process.

use crate::boot::boot;
use crate::shared::command::{Ran, Running, ctl};
use crate::shared::process;
use crate::shared::pty::Pty;
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;
use testkit::minionsd::Minionsd;
use testkit::rig::{Vm, VmConfig};
use testkit::wait::until;

/// A daemon and the VM `web-1`. Fields are dropped in this order.
struct Host {
    daemon: Minionsd,
    _vm: Vm,
    dir: TempDir,
}

impl Host {
    fn start() -> Self {
        let dir =
            tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let vm = boot(VmConfig::new("web-1", dir.path()));
        Self { daemon: process::start(dir.path()), _vm: vm, dir }
    }

    fn ctl(&self, args: &[&str]) -> Command {
        ctl(&self.daemon.host(), args)
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.ctl(args))
    }

    /// Runs a script in the guest.
    fn sh(&self, script: &str) -> Ran {
        self.run(&["exec", "web-1", "--", "sh", "-c", script])
    }

    #[track_caller]
    fn prints(&self, script: &str) -> String {
        let ran = self.sh(script);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// Reports whether a process in the guest has `argument` in its command line. The shell that lists them does not.
    fn runs(&self, argument: &str) -> bool {
        self.prints("ps -o args").lines().any(|line| line.contains(argument))
    }

    /// Returns the peak resident sets of the daemon and of the agent, in kB.
    fn peaks(&self) -> [u64; 2] {
        let host = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let guest = self.prints("cat /proc/$(pidof minions-agent)/status");
        [host, guest].map(|status| {
            let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        })
    }
}

/// Reads to the end, and returns the number of bytes and their hash.
fn digest(mut from: impl Read) -> (u64, String) {
    let (mut hash, mut len, mut buffer) = (Sha256::new(), 0, vec![0; 256 * 1024]);
    while let got @ 1.. = from.read(&mut buffer).unwrap() {
        hash.update(&buffer[..got]);
        len += got as u64;
    }
    (len, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Size of a stream, many times larger than [`FLAT`], in bytes.
const LARGE: u64 = 128 * 1024 * 1024;

/// Allowed growth of each peak resident set, in kB: enough for buffers of constant size.
const FLAT: u64 = 8 * 1024;

#[test]
fn a_large_stream_each_way_is_unchanged_and_memory_stays_constant() {
    let host = Host::start();
    let before = host.peaks();

    // Out of the guest, whose own digest arrives on standard error.
    let mut command =
        host.ctl(&["exec", "web-1", "--", "vsock-probe", "noise", &LARGE.to_string()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (len, here) = digest(child.stdout.take().unwrap());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(len, LARGE);
    assert_eq!(
        String::from_utf8(output.stderr).unwrap().split_whitespace().next(),
        Some(&here[..])
    );

    // Into the guest.
    let mut command = host.ctl(&["exec", "-i", "web-1", "--", "sha256sum"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || {
        let mut noise = fs::File::open("/dev/urandom").unwrap().take(LARGE);
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 256 * 1024]);
        while let got @ 1.. = noise.read(&mut buffer).unwrap() {
            hash.update(&buffer[..got]);
            stdin.write_all(&buffer[..got]).unwrap();
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let output = child.wait_with_output().unwrap();
    let here = feeder.join().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().split_whitespace().next(),
        Some(&here[..])
    );

    let after = host.peaks();
    println!("peak RSS in kB, daemon and agent: {before:?} before, {after:?} after");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + FLAT, "{before} kB before, {after} kB after");
    }
}

#[test]
fn every_end_has_its_exit_code_and_leaves_no_processes() {
    let host = Host::start();
    host.sh("exit 37").assert(37, "", "");
    host.sh("kill -SEGV $$").assert(139, "", "");
    host.run(&["exec", "web-1", "--", "no-such-program"]).assert(127, "", "no-such-program");
    host.run(&["exec", "web-1", "--", "/etc/passwd"]).assert(126, "", "/etc/passwd");

    // Ends at once, although a background process holds its output open.
    host.sh("sleep 77771 & echo hi").assert(0, "hi\n", "");
    assert!(host.runs("sleep 77771"));

    let limited = |program: &[&str]| {
        let began = Instant::now();
        host.run(&[&["--timeout", "1s", "exec", "web-1", "--"], program].concat())
            .assert(124, "", "");
        println!("a program with a limit of 1 s ended after {:?}", began.elapsed());
    };
    limited(&["sleep", "77772"]);
    assert!(!host.runs("sleep 77772"));
    // An orphan in its own session that ignores TERM: only its control group identifies it.
    let escapee = "(setsid sh -c 'trap \"\" TERM HUP; sleep 77773' &); trap '' TERM; sleep 77774";
    limited(&["sh", "-c", escapee]);
    assert!(!host.runs("sleep 77773") && !host.runs("sleep 77774"));
    // A process that has left its control group, as with `su` and a login session: its process group identifies it.
    let outsider = "echo $$ >/sys/fs/cgroup/cgroup.procs || exit 9; trap '' TERM; sleep 77777";
    limited(&["sh", "-c", outsider]);
    assert!(!host.runs("sleep 77777"));

    // The background process that an exec left on purpose still runs in its control group. No other group remains.
    assert!(host.runs("sleep 77771"));
    let groups = "ls /sys/fs/cgroup/minions | grep -c ^exec-";
    until("only that group and the one of this command remain", || host.prints(groups) == "2");
}

#[test]
fn on_disconnect_decides_what_happens_when_the_client_ends() {
    let host = Host::start();
    let script = "trap '' HUP; echo up; sleep 77775";
    let mut killed = Running::start(&mut host.ctl(&["exec", "web-1", "--", "sh", "-c", script]));
    assert_eq!(killed.line(), "up");
    killed.signal(Signal::TERM);
    killed.end().assert(143, "", "");
    let began = Instant::now();
    until("the program has ended", || !host.runs("sleep 77775"));
    println!("the program ended {:?} after its client", began.elapsed());

    let script = "for n in $(seq 40); do echo line $n; sleep 0.1; done; echo over";
    let detach = ["exec", "--on-disconnect", "detach", "--id", "kept", "web-1", "--", "sh", "-c"];
    let mut kept = Running::start(&mut host.ctl(&[&detach[..], &[script]].concat()));
    assert_eq!(kept.line(), "line 1");
    kept.signal(Signal::TERM);
    kept.end().assert(143, "", "");
    let all: String = (1..=40).map(|n| format!("line {n}\n")).chain(["over\n".into()]).collect();
    let logs = host.run(&["logs", "-f", "web-1", "kept"]);
    assert_eq!(String::from_utf8(logs.stdout).unwrap(), all);
    host.run(&["wait", "web-1", "kept"]).assert(0, "", "");
}

#[test]
fn a_killed_daemon_does_not_affect_a_transfer_of_a_hundred_megabytes() {
    let mut host = Host::start();
    host.prints("head -c 33554432 /dev/urandom >/tmp/noise");
    let expected = host.prints("cat /tmp/noise /tmp/noise /tmp/noise | sha256sum");
    let script = "echo run >>/tmp/runs; cat /tmp/noise /tmp/noise /tmp/noise";
    let mut command = host.ctl(&["exec", "web-1", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut head = vec![0; 20_000_000];
    stdout.read_exact(&mut head).unwrap();
    host.daemon.end(Signal::KILL);
    host.daemon = process::start(host.dir.path());
    let (len, digest) = digest(head.as_slice().chain(stdout));
    assert!(child.wait().unwrap().success());
    assert_eq!((len, Some(&digest[..])), (3 * 33_554_432, expected.split_whitespace().next()));
    assert_eq!(host.prints("cat /tmp/runs"), "run");
}

#[test]
fn slow_programs_do_not_delay_health_checks() {
    let host = Host::start();
    let health = || {
        let mut took: Vec<_> = (0..40)
            .map(|_| {
                let began = Instant::now();
                host.run(&["health", "web-1"]).assert(0, "ok", "");
                began.elapsed()
            })
            .collect();
        took.sort();
        took[20]
    };
    let alone = health();
    let slow = ["exec", "web-1", "--", "sh", "-c", "echo up; sleep 300"];
    let mut running: Vec<_> = (0..8).map(|_| Running::start(&mut host.ctl(&slow))).collect();
    for program in &mut running {
        assert_eq!(program.line(), "up");
    }
    let with_programs = health();
    println!(
        "health by minionsctl, median of 40: {alone:?} alone, {with_programs:?} with 8 programs"
    );
}

#[test]
fn a_shell_vim_and_top_work_in_the_terminal() {
    let host = Host::start();
    let shell = ["exec", "-it", "-e", "PS1=now> ", "web-1", "--", "sh", "-i"];
    let mut pty = Pty::start(&host.ctl(&shell));
    let before = pty.modes();
    pty.shows("now> ");
    pty.resize(40, 132);
    pty.types("stty size; tty\r");
    pty.shows("40 132\r\n/dev/pts/");
    pty.types("sleep 77776\r");
    until("the sleep runs", || host.runs("sleep 77776"));
    pty.types("\u{3}");
    pty.shows("now> ");

    // vim uses the whole screen, also after a change of its size.
    pty.types("vim /tmp/poem\r");
    pty.shows("\"/tmp/poem\"");
    pty.types("iroses\rviolets\u{1b}:w\r");
    pty.shows("written");
    pty.resize(20, 60);
    // The size and the keys take separate paths. The size must arrive first.
    until("the terminal is resized", || host.prints("stty -F /dev/pts/0 size") == "20 60");
    pty.types(":set lines? columns?\r");
    pty.shows("columns=60");
    pty.types(":q\r");
    pty.shows("now> ");
    assert_eq!(host.prints("cat /tmp/poem"), "roses\nviolets");

    pty.types("top -d 1\r");
    pty.shows("Load average");
    pty.types("q");
    pty.shows("now> ");
    pty.types("exit 5\r");
    assert_eq!(pty.code(), Some(5));
    assert_eq!(pty.modes(), before);
}

#[test]
fn the_terminal_is_restored_after_a_crash_of_the_daemon() {
    let mut host = Host::start();
    let mut pty =
        Pty::start(&host.ctl(&["exec", "-it", "-e", "PS1=now> ", "web-1", "--", "sh", "-i"]));
    let before = pty.modes();
    pty.shows("now> ");
    assert_ne!(pty.modes(), before);
    host.daemon.end(Signal::KILL);
    pty.shows("connection lost");
    pty.types("\r~.");
    assert_eq!(pty.code(), Some(125));
    assert_eq!(pty.modes(), before);
}
