//! `minionsctl logs VM ID`: prints a program's output.

use super::context::Context;
use crate::cli;
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::{Printer, write_to};
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
    let mut printed = PrintedOffsets::default();
    let mut missed: Option<Instant> = None;
    let mut seen = false;
    loop {
        let before = (printed.stdout, printed.stderr);
        let path = vm_path(vm, &format!("/execs/{}/output{}", args.exec.id, printed.query(args)));
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
    let json = context.printer.is_json();
    while let Some(event) = events.next().await? {
        if json {
            Printer::json_line(&event)?;
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
    fn query(&self, args: &cli::LogsArgs) -> String {
        let offset = |name: &str, offset: Option<u64>| {
            offset.map_or_else(String::new, |offset| format!("&{name}={offset}"))
        };
        format!(
            "?follow={}{}{}",
            args.follow,
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
        let bytes = match (&chunk.data, &chunk.data_base64) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(base64)) => BASE64_STANDARD
                .decode(base64)
                .map_err(|error| client.not_minionsd(error.to_string()))?,
            (None, None) => Vec::new(),
        };
        if !done {
            write_to(stream, &bytes).map_err(Failure::Output)?;
        }
        *self.offset(stream) = Some(chunk.offset + bytes.len() as u64);
        Ok(())
    }
}
