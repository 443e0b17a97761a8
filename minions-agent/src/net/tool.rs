//! Short calls of the guest's own programs: `systemctl`, `nmcli`.

use rustix::fs::{OFlags, fcntl_setfl};
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Deadline for a program, long enough to restart a service on a busy guest.
const DEADLINE: Duration = Duration::from_secs(10);

/// Interval between two checks whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Maximum length of the output that is read, in bytes. It fits into a pipe, so the program never blocks on it.
const MAX_OUTPUT: u64 = 32 * 1024;

/// Runs `program` with English messages and returns its status and its standard output. A program that has not
/// ended within ten seconds is killed.
///
/// Blocks.
///
/// # Errors
///
/// `NotFound` if the guest has no such program, `TimedOut` if it was killed.
pub(super) fn run(program: &str, args: &[&str]) -> io::Result<(ExitStatus, String)> {
    let mut child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let status = ended(&mut child)?;
    let output = child.stdout.take().map(written).transpose()?.unwrap_or_default();
    Ok((status, String::from_utf8_lossy(&output).into_owned()))
}

/// Returns the output of a program that has ended. Does not wait for the end of the pipe: a background process of the
/// program can keep it open.
fn written(stdout: ChildStdout) -> io::Result<Vec<u8>> {
    fcntl_setfl(&stdout, OFlags::NONBLOCK)?;
    let mut output = Vec::new();
    match stdout.take(MAX_OUTPUT).read_to_end(&mut output) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(output),
    }
}

fn ended(child: &mut Child) -> io::Result<ExitStatus> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(status),
            None if Instant::now() < deadline => sleep(LOOK),
            None => {
                // The program can have ended in between.
                let _ = child.kill();
                child.wait()?;
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}
