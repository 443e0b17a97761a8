//! Programs that do not read their input, while other data of the same connection must still pass.

use super::guest::SshGuest;
use super::memory::{BUDGET, Flood, MIB, peak};
use super::programs::{noise, proxy_of};
use crate::shared::command::Ran;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Sender, channel};
use testkit::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn output_that_the_client_reads_late_and_input_beyond_the_budget_pass_unchanged() {
    let ssh = SshGuest::start().await;
    let input = noise(60 * MIB);
    // The output is not read until the budget is used up, so the program waits for the client.
    let flood = Flood::start(&ssh, "exec cat", input.clone());
    until("the budget is used up", || peak(flood.proxy) > flood.before + BUDGET);
    let Flood { mut client, mut stdout, feeder, .. } = flood;
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).unwrap();
        output
    });
    until("the output is complete", || reader.is_finished());
    assert!(reader.join().unwrap() == input);
    assert!(client.wait().unwrap().success());
    feeder.join().unwrap();
}

/// Sessions that share one connection, whose first program does not read its input.
struct SharedConnection {
    ssh: SshGuest,
    socket: String,
}

impl SharedConnection {
    fn options(&self, master: &str, command: &str) -> Vec<String> {
        let path = format!("ControlPath={}", self.socket);
        let master = format!("ControlMaster={master}");
        ["-o", &path, "-o", &master, "web-1.minions", "--", command].map(str::to_owned).into()
    }

    /// Runs a command. Does not wait longer than the deadline, although the first client has its output open.
    fn run(&self, command: &str) -> Ran {
        let options = self.options("no", command);
        let mut ssh = self.ssh.ssh(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let ran = std::thread::spawn(move || ssh.output().unwrap());
        until("the other session has ended", || ran.is_finished());
        Ran::from(ran.join().unwrap())
    }

    /// Starts a program that prints its pid and does not read the `len` bytes of its input.
    fn stuck(&self, master: &str, len: usize) -> StuckProgram {
        let options = self.options(master, "echo $$; exec sleep 1000");
        let mut command = self.ssh.ssh(&options.iter().map(String::as_str).collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let mut stdin = client.stdin.take().unwrap();
        let mut pid = Vec::new();
        let mut stdout = client.stdout.take().unwrap();
        while pid.last() != Some(&b'\n') {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            pid.push(byte[0]);
        }
        let pid = String::from_utf8(pid).unwrap();
        let (start, started) = channel();
        std::thread::spawn(move || {
            // Fails when the program is dropped first, and when the client ends before it has taken all input.
            if started.recv().is_ok() {
                drop(stdin.write_all(&noise(len)));
            }
        });
        StuckProgram { client, process: format!("/proc/{}", pid.trim()), start }
    }
}

struct StuckProgram {
    client: Child,
    process: String,
    start: Sender<()>,
}

impl StuckProgram {
    /// Sends the input.
    fn send(&self) {
        self.start.send(()).unwrap();
    }

    fn is_running(&self) -> bool {
        Path::new(&self.process).exists()
    }
}

impl Drop for StuckProgram {
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_stops_no_other_session_of_its_connection() {
    let ssh = SshGuest::start().await;
    let socket = ssh.guest.file("control").to_str().unwrap().to_owned();
    let shared = SharedConnection { ssh, socket };
    let first = shared.stuck("yes", 2 * BUDGET * 1024);
    let proxy = proxy_of(first.client.id());
    let before = peak(proxy);
    first.send();
    until("the budget is used up", || peak(proxy) > before + BUDGET);
    shared.run("echo other").assert(0, "other\n", "");
    shared.run("head -c 4000000 /dev/zero | wc -c").assert(0, "4000000\n", "");
    assert!(first.is_running());

    // Each further one can add a window. No program that reads late loses its input.
    let others: Vec<_> = (0..6).map(|_| shared.stuck("no", 4 * MIB)).collect();
    others.iter().for_each(StuckProgram::send);
    shared.run("echo other").assert(0, "other\n", "");
    assert!(first.is_running() && others.iter().all(StuckProgram::is_running));
}
