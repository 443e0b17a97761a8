//! Programs that a step runs: with a deadline, in a process group of their own, with bounded output.

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Interval between two checks whether the program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Length of the end of the output that is kept, in bytes.
const KEPT_OUTPUT: usize = 256;

/// Runs a program, and returns the end of its output. Blocks.
///
/// A program that has not ended after `limit` is killed with its process group. Processes that it leaves in the
/// background run on.
///
/// # Errors
///
/// The reason why it did not start or succeed, with the end of its output.
pub(super) fn run(command: &mut Command, limit: Duration) -> Result<String, String> {
    let started = start(command);
    let (mut child, mut output) = started.map_err(|error| format!("cannot be started: {error}"))?;
    let deadline = Instant::now() + limit;
    let mut kept = Vec::new();
    let status = loop {
        keep_end(&mut output, &mut kept);
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => sleep(LOOK),
            Ok(None) => {
                // Fails only if all processes of the group have ended in between.
                let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
                let _ = child.wait();
                let text = text(&kept);
                return Err(format!("did not end within {limit:?}, and was killed{text}"));
            }
            Err(error) => return Err(format!("cannot be waited for: {error}")),
        }
    };
    keep_end(&mut output, &mut kept);
    let text = text(&kept);
    if status.success() { Ok(format!("succeeded{text}")) } else { Err(format!("{status}{text}")) }
}

fn start(command: &mut Command) -> io::Result<(std::process::Child, File)> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setfl(&ours, OFlags::NONBLOCK)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs))
        .process_group(0)
        .spawn();
    // The command holds the writing end; the next one to be started must not inherit it.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    Ok((child?, File::from(ours)))
}

/// Reads what has been written so far, and keeps its end. Does not wait: a process in the background can keep the pipe
/// open.
fn keep_end(output: &mut File, kept: &mut Vec<u8>) {
    let mut buffer = [0; 4096];
    // Bounded, because a program can write faster than this reads.
    for _ in 0..64 {
        match output.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(len) => kept.extend_from_slice(&buffer[..len]),
        }
        let surplus = kept.len().saturating_sub(KEPT_OUTPUT);
        kept.drain(..surplus);
    }
}

fn text(kept: &[u8]) -> String {
    let text = String::from_utf8_lossy(kept);
    match text.trim() {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> Result<String, String> {
        run(Command::new("sh").args(["-c", script]), limit)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_result_has_the_status_and_the_end_of_the_output() {
        assert_eq!(sh("echo done; echo twice >&2", LONG).unwrap(), "succeeded: done\ntwice");
        assert_eq!(sh("true", LONG).unwrap(), "succeeded");
        assert_eq!(sh("echo why; exit 3", LONG).unwrap_err(), "exit status: 3: why");
        let long = sh("yes | head -c 1000000; echo end", LONG).unwrap();
        assert!(long.len() < 300 && long.ends_with("end"), "{long}");
        assert!(
            run(&mut Command::new("/nonexistent/hook"), LONG)
                .unwrap_err()
                .contains("cannot be started")
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_group() {
        let marker = format!("{}", 86_400 + std::process::id());
        let script = format!("echo began; sleep {marker} & sleep {marker}");
        let error = sh(&script, Duration::from_millis(200)).unwrap_err();
        assert!(error.starts_with("did not end within 200ms, and was killed: began"), "{error}");
        let is_left = || {
            std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0).any(|one| one == marker.as_bytes())
            })
        };
        let deadline = Instant::now() + LONG;
        while is_left() {
            assert!(Instant::now() < deadline, "a process of the group is left");
            sleep(LOOK);
        }
    }
}
