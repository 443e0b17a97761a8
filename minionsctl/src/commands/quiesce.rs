//! `minionsctl quiesce VM [-- CMD]`: brings the guest's file systems into a consistent state, and keeps them so while a
//! command runs on this host.

mod host_command;

use super::context::Context;
use super::thaw::{self, ThawedGuest};
use crate::agent;
use crate::cli::QuiesceArgs;
use crate::client::{CallDeadlines, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::SignalListeners;
use crate::output::Rows;
use crate::target::Target;
use futures_util::FutureExt;
use host_command::HostCommand;
use minions_api::ErrorCode;
use minions_api::quiesce::{GuestQuiesced, HookRun, QuiesceRequest};
use minions_proto::connection::ExchangeError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::message::{FrozenFilesystem, MAX_TTL_MS, Quiesce, Quiesced};
use reqwest::Method;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Longest time that the agent takes in addition to the lease: for the hooks before the freeze, and after a failed one.
const BEYOND_LEASE: Duration = Duration::from_secs(135);

/// Pause between two attempts to thaw.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Time for the thaw after a signal. If it takes longer, the lease ends the quiesce.
const THAW_ON_SIGNAL: Duration = Duration::from_secs(2);

/// Time after the end of the lease in which an attempt to thaw can still find out how it ended.
const AFTER_LEASE: Duration = Duration::from_secs(5);

/// A quiesce in effect.
struct HeldQuiesce {
    id: String,
    /// End of the lease on this host's clock.
    until: Instant,
}

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: QuiesceArgs,
) -> Result<ExitStatus, Failure> {
    let ttl_ms = args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let request = Quiesce { ttl_ms, freeze_fs: args.freeze_fs, hooks: !args.no_hooks };
    request.ttl_ms().map_err(|mut invalid| {
        invalid.field = "--ttl".into();
        invalid
    })?;
    let Some(command) = HostCommand::new(args.command) else {
        let quiesced = quiesce(target, &request).await?;
        return print(context, &quiesced);
    };
    // Listens before the guest is quiesced: from then on, no signal may end this process before the thaw.
    let mut signals = SignalListeners::listen(false)?;
    let mut quiescing = pin!(quiesce(target, &request));
    let quiesced = tokio::select! {
        biased;
        quiesced = &mut quiescing => quiesced?,
        signal = signals.ending() => {
            // Dropping the call makes the agent thaw the guest, unless the reply is on its way.
            if let Some(Ok(quiesced)) = quiescing.now_or_never() {
                let _ = timeout(THAW_ON_SIGNAL, thaw::thaw(target, &quiesced.reply.id)).await;
            }
            return Ok(ExitStatus::by_signal(signal));
        }
    };
    report(context, &quiesced);
    let held = HeldQuiesce {
        id: quiesced.reply.id,
        until: Instant::now() + Duration::from_millis(quiesced.reply.lease_ms.min(MAX_TTL_MS)),
    };
    let program = command.name();
    let ended = command.run(&mut signals).await;
    let thawed = thaw_after(target, &held, &mut signals).await;
    let thawed = thawed.map_err(|failure| of_thaw(failure, program.clone()));
    let thawed = thawed.and_then(|hooks| hooks.ok_or(Failure::LeaseOver(program)));
    match (ended, thawed) {
        (Err(failure), Err(of_thaw)) => {
            context.printer.failure(&of_thaw);
            Err(failure)
        }
        (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        (Ok(status), Ok(hooks)) => {
            thaw::report(context, &hooks);
            Ok(status)
        }
    }
}

/// Reply to a quiesce, in the form in which it is printed.
struct QuiescedReply {
    reply: Quiesced,
    shown: ShownReply,
}

enum ShownReply {
    Agent(serde_json::Value),
    Daemon(GuestQuiesced),
}

async fn quiesce(target: &Target, request: &Quiesce) -> Result<QuiescedReply, Failure> {
    let lease = Duration::from_millis(request.ttl_ms()?);
    match target {
        Target::Agent(address) => {
            let answer = agent::call(address, request, lease + BEYOND_LEASE).await?;
            Ok(QuiescedReply { reply: answer.reply, shown: ShownReply::Agent(answer.json) })
        }
        Target::Vm(client, vm) => {
            let Quiesce { ttl_ms, freeze_fs, hooks } = *request;
            let body = QuiesceRequest { ttl_ms, freeze_fs, hooks };
            let deadlines = CallDeadlines { asked: None, at_most: lease + BEYOND_LEASE };
            let path = vm_path(vm, "/quiesce");
            let shown: GuestQuiesced =
                client.send_json(Method::POST, &path, &body, deadlines).await?;
            let GuestQuiesced { id, lease_ms, frozen, not_frozen, hooks, .. } = shown.clone();
            let reply = Quiesced { id, lease_ms, frozen, not_frozen, hooks };
            Ok(QuiescedReply { reply, shown: ShownReply::Daemon(shown) })
        }
    }
}

/// Thaws the guest, and returns the thaw hooks; `None` if another client's request had ended the quiesce. Repeats the call
/// while it fails for reasons that can pass, until the lease has ended.
///
/// Signals are taken meanwhile, so that they do not end this process.
async fn thaw_after(
    target: &Target,
    held: &HeldQuiesce,
    signals: &mut SignalListeners,
) -> Result<Option<Vec<HookRun>>, Failure> {
    let thawing = async {
        // True if an earlier attempt may have ended the quiesce, although its reply was lost.
        let mut may_be_ours = false;
        loop {
            match thaw::thaw(target, &held.id).await {
                Err(failure)
                    if failure.is_transient() && Instant::now() < held.until + AFTER_LEASE =>
                {
                    may_be_ours |= failure.may_have_executed();
                    sleep(RETRY_PAUSE).await;
                }
                Ok(ThawedGuest { hooks, already }) => {
                    return Ok((may_be_ours || !already).then_some(hooks));
                }
                Err(failure) => return Err(failure),
            }
        }
    };
    tokio::pin!(thawing);
    loop {
        tokio::select! {
            thawed = &mut thawing => return thawed,
            _ = signals.ending() => {}
        }
    }
}

/// Converts the failure of the thaw: if the guest is not quiesced any more, the lease has ended too early.
fn of_thaw(failure: Failure, program: String) -> Failure {
    let is_over = match &failure {
        Failure::Problem(problem) => problem.code == ErrorCode::NotQuiesced,
        Failure::Agent(ExchangeError::Agent(error)) => error.code == Some(AgentCode::NotQuiesced),
        _ => false,
    };
    if is_over { Failure::LeaseOver(program) } else { failure }
}

/// Prints what the user must know about a quiesce whose command has standard output.
fn report(context: &Context<'_>, quiesced: &QuiescedReply) {
    for FrozenFilesystem { mount_point, fs_type } in &quiesced.reply.not_frozen {
        let remark = format!(
            "warning: {mount_point} ({fs_type}) is not frozen: a snapshot of it may not be consistent"
        );
        context.printer.remark(&remark);
    }
}

fn print(context: &Context<'_>, quiesced: &QuiescedReply) -> Result<ExitStatus, Failure> {
    match &quiesced.shown {
        ShownReply::Agent(json) => context.printer.json(json)?,
        ShownReply::Daemon(shown) => context.printer.result(shown, rows)?,
    }
    Ok(ExitStatus::Success)
}

fn rows(quiesced: &GuestQuiesced) -> Rows {
    let list = |mounts: &[FrozenFilesystem]| {
        let named = mounts.iter().map(|mount| format!("{} ({})", mount.mount_point, mount.fs_type));
        let named: Vec<_> = named.collect();
        (!named.is_empty()).then(|| named.join(", "))
    };
    let rows = Rows::new()
        .value("Quiesced until:", quiesced.quiesced_until)
        .value("Id:", &quiesced.id)
        .value("Frozen:", list(&quiesced.frozen).unwrap_or_else(|| "-".into()))
        .optional("Not frozen:", list(&quiesced.not_frozen));
    quiesced.hooks.iter().fold(rows, |rows, hook| rows.value("Hook:", thaw::in_words(hook)))
}
