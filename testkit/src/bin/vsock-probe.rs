//! A probe of what a process inside a guest can do over VSOCK; linked statically into the rig's guest image.
//!
//! ```text
//! vsock-probe cid                 prints the guest's own CID
//! vsock-probe connect CID PORT    answered | closed | refused
//! vsock-probe bind PORT           bound | refused
//! vsock-probe echo PORT           echoes each connection in turn; runs until it is killed
//! vsock-probe spawn TIMES PROGRAM median time in µs to start PROGRAM and wait for its end
//! vsock-probe noise BYTES         random bytes to standard output, their SHA-256 to standard error
//! ```

use sha2::{Digest, Sha256};
use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream, get_local_cid};

/// Deadline for an answer; an agent answers in milliseconds.
const DEADLINE: Duration = Duration::from_secs(5);

/// Frame with `{"type":"health_check"}`.
const HEALTH_CHECK: &[u8] = b"\x00\x00\x00\x17{\"type\":\"health_check\"}";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = match args[..] {
        ["cid"] => get_local_cid().map_or_else(|error| error.to_string(), |cid| cid.to_string()),
        ["connect", cid, port] => match (cid.parse(), port.parse()) {
            (Ok(cid), Ok(port)) => connect(cid, port),
            _ => return ExitCode::from(2),
        },
        ["bind", port] => match port.parse() {
            Ok(port) => VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)
                .map_or_else(|_| "refused".to_owned(), |_| "bound".to_owned()),
            Err(_) => return ExitCode::from(2),
        },
        ["echo", port] => match port.parse() {
            Ok(port) => echo(port).map_or_else(|error| error.to_string(), |()| "ended".to_owned()),
            Err(_) => return ExitCode::from(2),
        },
        ["spawn", times, program] => match times.parse().map(|times| spawn(times, program)) {
            Ok(Ok(micros)) => micros.to_string(),
            _ => return ExitCode::from(2),
        },
        ["noise", len] => match len.parse().map(noise) {
            Ok(Ok(())) => return ExitCode::SUCCESS,
            Ok(Err(_)) => return ExitCode::FAILURE,
            Err(_) => return ExitCode::from(2),
        },
        _ => return ExitCode::from(2),
    };
    match writeln!(io::stdout(), "{output}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn connect(cid: u32, port: u32) -> String {
    match VsockStream::connect_with_cid_port(cid, port) {
        Ok(stream) => if ask(stream).unwrap_or(false) { "answered" } else { "closed" }.to_owned(),
        Err(_) => "refused".to_owned(),
    }
}

fn echo(port: u32) -> io::Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    let mut buffer = [0; 4096];
    for stream in listener.incoming() {
        let mut stream = stream?;
        // A connection that breaks ends; the next one is served.
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..len]).is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn spawn(times: usize, program: &str) -> io::Result<u128> {
    let mut samples = Vec::new();
    for _ in 0..times.max(1) {
        let started = Instant::now();
        Command::new(program).status()?;
        samples.push(started.elapsed().as_micros());
    }
    samples.sort_unstable();
    Ok(samples[samples.len() / 2])
}

/// Writes random bytes in pieces of 64 KiB, the size of a pipe, and then their hash. A pipeline of `tee` and
/// `sha256sum` does the same in pieces of 1 KiB, five times as slowly.
fn noise(len: u64) -> io::Result<()> {
    let mut noise = File::open("/dev/urandom")?.take(len);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    let mut stdout = io::stdout().lock();
    while let read @ 1.. = noise.read(&mut buffer)? {
        hash.update(&buffer[..read]);
        stdout.write_all(&buffer[..read])?;
    }
    stdout.flush()?;
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(io::stderr(), "{digest}")
}

/// Reports whether at least one byte of an answer arrives.
fn ask(mut stream: VsockStream) -> io::Result<bool> {
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(HEALTH_CHECK)?;
    Ok(stream.read(&mut [0])? > 0)
}
