//! `minionsctl logs VM ID`: prints a program's output.

use super::context::Context;
use super::log_tail::OutputTail;
use crate::cli;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::write_to;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use minions_api::VmName;
use minions_api::exec::{Chunk, ExecEvent, StreamName};
use minions_proto::channel::OutputStream;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest time that minionsd or the VM may be unavailable while following.
const ABSENCE: Duration = Duration::from_secs(60);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(500);

/// Offsets after the last printed bytes.
#[derive(Debug, Default)]
struct PrintedOffsets {
    stdout: Option<u64>,
    stderr: Option<u64>,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
    args: &cli::LogsArgs,
) -> Result<ExitStatus, Failure> {
    if args.since.is_some() || args.timestamps {
        return Err(Failure::Usage(
            "the output of programs is kept without timestamps: leave --since and --timestamps out, or use --tail",
        ));
    }
    let mut printed = PrintedOffsets::default();
    if let Some(lines) = args.tail {
        let ended = print_tail(context, client, vm, args, lines, &mut printed).await?;
        if ended || !args.follow {
            return Ok(ExitStatus::Success);
        }
    }
    let mut missed: Option<Instant> = None;
    let mut seen = false;
    loop {
        let before = (printed.stdout, printed.stderr);
        let query = printed.query(args.follow);
        let path = vm_path(vm, &format!("/execs/{}/output{query}", args.exec.id));
        let Err(failure) = replay(context, client, &path, &mut printed, &mut seen).await else {
            return Ok(ExitStatus::Success);
        };
        if before != (printed.stdout, printed.stderr) {
            missed = None;
        }
        let since = *missed.get_or_insert_with(Instant::now);
        if !args.follow || !seen || !failure.is_transient() || since.elapsed() > ABSENCE {
            return Err(failure);
        }
        sleep(PAUSE).await;
    }
}

/// Prints the last lines of each stream, and advances the offsets to the end of the output so far. Returns true if the
/// program has ended.
async fn print_tail(
    context: &Context<'_>,
    client: &DaemonClient,
    vm: &VmName,
    args: &cli::LogsArgs,
    lines: usize,
    printed: &mut PrintedOffsets,
) -> Result<bool, Failure> {
    if context.printer.is_structured() {
        return Err(Failure::Usage("--tail and -o json exclude each other"));
    }
    let query = printed.query(false);
    let path = vm_path(vm, &format!("/execs/{}/output{query}", args.exec.id));
    let mut events = client.get_lines::<ExecEvent>(&path).await?;
    let (mut stdout, mut stderr) = (OutputTail::default(), OutputTail::default());
    let ended = loop {
        match events.next().await?.ok_or_else(|| client.broke_off())? {
            ExecEvent::Started { .. } | ExecEvent::Heartbeat | ExecEvent::Gap { .. } => {}
            ExecEvent::Stdout(chunk) => {
                let bytes = bytes_of(client, &chunk)?;
                printed.stdout = Some(chunk.offset + bytes.len() as u64);
                stdout.push(&bytes);
            }
            ExecEvent::Stderr(chunk) => {
                let bytes = bytes_of(client, &chunk)?;
                printed.stderr = Some(chunk.offset + bytes.len() as u64);
                stderr.push(&bytes);
            }
            ExecEvent::Exit { .. } => break true,
            ExecEvent::End => break false,
            ExecEvent::Error { problem } => return Err(Failure::Problem(Box::new(problem))),
        }
    };
    write_to(OutputStream::Stdout, &stdout.last(lines)).map_err(Failure::Output)?;
    write_to(OutputStream::Stderr, &stderr.last(lines)).map_err(Failure::Output)?;
    Ok(ended)
}

/// Returns the bytes of a chunk.
fn bytes_of(client: &DaemonClient, chunk: &Chunk) -> Result<Vec<u8>, Failure> {
    match (&chunk.data, &chunk.data_base64) {
        (Some(text), _) => Ok(text.clone().into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| client.not_minionsd(error.to_string()))
        }
        (None, None) => Ok(Vec::new()),
    }
}

/// Prints one replay until its last event.
async fn replay(
    context: &Context<'_>,
    client: &DaemonClient,
    path: &str,
    printed: &mut PrintedOffsets,
    seen: &mut bool,
) -> Result<(), Failure> {
    let mut events = client.get_lines::<ExecEvent>(path).await?;
    *seen = true;
    let json = context.printer.is_structured();
    while let Some(event) = events.next().await? {
        if json {
            context.printer.json_line(&event)?;
        }
        match event {
            ExecEvent::Started { .. } | ExecEvent::Heartbeat => {}
            ExecEvent::Stdout(chunk) => {
                printed.take(client, OutputStream::Stdout, &chunk, json)?;
            }
            ExecEvent::Stderr(chunk) => {
                printed.take(client, OutputStream::Stderr, &chunk, json)?;
            }
            ExecEvent::Gap { stream, from, to } => {
                let (stream, name) = match stream {
                    StreamName::Stdout => (OutputStream::Stdout, "standard output"),
                    StreamName::Stderr => (OutputStream::Stderr, "standard error"),
                };
                let bytes = to.saturating_sub(from);
                context.printer.remark(&format!("{bytes} bytes of {name} are lost"));
                *printed.offset(stream) = Some(to);
            }
            ExecEvent::Exit { .. } | ExecEvent::End => return Ok(()),
            ExecEvent::Error { problem } => return Err(Failure::Problem(Box::new(problem))),
        }
    }
    Err(client.broke_off())
}

impl PrintedOffsets {
    fn query(&self, follow: bool) -> String {
        let offset = |name: &str, offset: Option<u64>| {
            offset.map_or_else(String::new, |offset| format!("&{name}={offset}"))
        };
        format!(
            "?follow={follow}{}{}",
            offset("stdout_offset", self.stdout),
            offset("stderr_offset", self.stderr)
        )
    }

    fn offset(&mut self, stream: OutputStream) -> &mut Option<u64> {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Prints the chunk, unless it is `done` already, and advances the offset.
    fn take(
        &mut self,
        client: &DaemonClient,
        stream: OutputStream,
        chunk: &Chunk,
        done: bool,
    ) -> Result<(), Failure> {
        let bytes = bytes_of(client, chunk)?;
        if !done {
            write_to(stream, &bytes).map_err(Failure::Output)?;
        }
        *self.offset(stream) = Some(chunk.offset + bytes.len() as u64);
        Ok(())
    }
}
