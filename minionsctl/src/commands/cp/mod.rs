//! `minionsctl cp`: files and trees into guests, out of guests, and between guests.
//!
//! ```text
//!  host ─▶ guest   thread: pack_tree ─▶ ChannelWriter ─▶ body of PUT
//!  guest ─▶ host   body of GET ─▶ ChannelReader ─▶ thread: unpack_tree
//!  guest ─▶ guest  body of GET ─▶ ChannelReader ─▶ thread: rename_members ─▶ ChannelWriter ─▶ body of PUT
//! ```
//!
//! With `-r`, and from or to `-`, the bodies are tar streams. Otherwise they are the contents of regular files.
//!
//! * [`copy_end`]: source or destination. [`target`]: the rules for names. [`copy_settings`]: attributes to keep.
//! * [`job`]: parts that all copies have in common. [`direction`]: one copy, by [`upload`], [`download`] or [`between`].
//!   [`many`]: copies to many VMs.
//! * [`byte_channel`]: streams between threads and connections. [`progress`], [`measure`], [`failure_log`],
//!   [`copy_result`]: what is shown.

mod between;
mod byte_channel;
mod copy_end;
mod copy_result;
mod copy_settings;
mod direction;
mod download;
mod failure_log;
mod job;
mod many;
mod measure;
mod progress;
mod target;
mod upload;

use super::context::Context;
use crate::cli::CopyArgs;
use crate::client::DaemonClient;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::terminal::output_is_terminal;
use copy_end::CopyEnd;
use copy_result::CopyResult;
use copy_settings::CopySettings;
use failure_log::FailureLog;
use job::CopyJob;
use progress::CopyProgress;
use std::ffi::OsString;
use std::sync::Arc;

pub(super) async fn run(
    context: &Context<'_>,
    client: Arc<DaemonClient>,
    args: &CopyArgs,
) -> Result<ExitStatus, Failure> {
    let settings = CopySettings::of(args);
    let progress = CopyProgress::new(args.quiet);
    let job = CopyJob { client: &client, settings: &settings, progress: &progress };
    let copied = if args.many.is_meant() {
        many::run(context, &job, args).await
    } else if args.many.is_said() {
        Err(Failure::Usage("--concurrency and --fail-fast require --on or --all"))
    } else {
        all(context, &job, &args.locations).await
    };
    progress.end();
    copied
}

/// Copies all sources, one after the other.
async fn all(
    context: &Context<'_>,
    job: &CopyJob<'_>,
    locations: &[OsString],
) -> Result<ExitStatus, Failure> {
    let ends = locations.iter().map(|text| CopyEnd::parse(text));
    let mut sources = ends.collect::<Result<Vec<_>, _>>()?;
    let end = sources.pop().ok_or(Failure::Usage("no destination given"))?;
    check(context, job, &sources, &end)?;
    let several = sources.len() > 1;
    let destination = job.destination(end, several).await?;
    let mut status = ExitStatus::Success;
    for source in &sources {
        let log = Arc::new(FailureLog::new(job.progress, None));
        let copied = direction::copy(job, source, &destination, &log).await;
        if let Err(failure) = &copied {
            job.progress.aside(|| context.printer.failure(failure));
        }
        let summary = copied.as_ref().map(|summary| *summary);
        let result = CopyResult::of((source, &destination.end), None, summary, &log);
        if !result.is_ok() {
            status = ExitStatus::Failure;
        }
        if context.printer.is_structured() {
            context.printer.json_line(&result)?;
        }
    }
    Ok(status)
}

/// Refuses combinations that no copy can serve.
fn check(
    context: &Context<'_>,
    job: &CopyJob<'_>,
    sources: &[CopyEnd],
    destination: &CopyEnd,
) -> Result<(), Failure> {
    let is_guest = |end: &CopyEnd| matches!(end, CopyEnd::Guest(_));
    if !is_guest(destination) && !sources.iter().all(is_guest) {
        let message = "one of source and destination must be in a guest: VM:/PATH";
        return Err(Failure::Usage(message));
    }
    let streams = sources.iter().chain([destination]).filter(|end| **end == CopyEnd::Stream);
    if streams.count() == 0 {
        return Ok(());
    }
    if sources.len() > 1 {
        return Err(Failure::Usage("a tar stream (-) is the only source, or that of one source"));
    }
    if job.settings.mode.is_some() {
        return Err(Failure::Usage("--mode does not apply to a tar stream (-)"));
    }
    if *destination == CopyEnd::Stream {
        if context.printer.is_structured() {
            return Err(Failure::Usage(
                "-o json and a tar stream on standard output exclude each other",
            ));
        }
        if output_is_terminal() {
            return Err(Failure::Usage(
                "refusing to write a tar stream to a terminal: redirect it",
            ));
        }
    }
    Ok(())
}
