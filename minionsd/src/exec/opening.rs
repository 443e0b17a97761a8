//! Opening the first stream to a program, and re-attaching after a stream broke.
//!
//! Both requests may be repeated: a program has an id, so the same instance of the agent does not start it twice.
//! Another instance would, so only the first attempt goes to whichever instance answers ([`AgentClient::open`]).
//!
//! [`AgentClient::open`]: crate::agent::AgentClient::open

use super::error::ExecError;
use super::target::ExecTarget;
use crate::agent::{
    AgentInstance, AgentRefusal, AgentStream, CallError, OpenError, TransportError,
};
use crate::vm::backoff;
use minions_api::vm::Failure;
use minions_proto::Call;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::exec_client::check_attached;
use minions_proto::message::{ExecAttach, ExecAttached, ExecStart, Feature, MAX_REATTACH_GRACE_MS};
use rand::RngExt;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Deadline of one attempt. An agent starts or finds a program immediately, unless its guest lacks resources.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Maximum pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The agent's reply to start or attach, and the program's stream.
pub(crate) type OpenedStream = (ExecAttached, AgentStream);

/// Starts a program, which must have an id.
///
/// # Errors
///
/// The agent refused, or could not be reached. [`ExecError::may_have_executed`] is accurate for both.
pub(crate) async fn start(
    target: &ExecTarget,
    start: &ExecStart,
    deadline: Instant,
) -> Result<OpenedStream, ExecError> {
    if let Some(field) = start.limit() {
        target.vm.client().require(Feature::ExecLimits, &[field], deadline).await?;
    }
    match target.vm.reattach_grace_ms() {
        None => start_call(target, start, deadline).await,
        grace => {
            let start = ExecStart { reattach_grace_ms: grace, ..start.clone() };
            start_call(target, &start, deadline).await
        }
    }
}

/// Sends a request that starts a program, and that contains the program's id.
///
/// # Errors
///
/// As [`start`].
pub(crate) async fn start_call<C: Call<Reply = ExecAttached>>(
    target: &ExecTarget,
    start: &C,
    deadline: Instant,
) -> Result<OpenedStream, ExecError> {
    let error = match open(target, start, None, deadline).await {
        Err(error) if may_pass(&error) => error,
        settled => return settled,
    };
    if Instant::now() >= deadline {
        return Err(error);
    }
    if !error.may_have_executed() && !is_lost(&error) {
        // The connection was not lost: a limit was reached, or the agent cannot be reached. The caller decides.
        return Err(error);
    }
    persist(target, start, Instant::now(), deadline, error.may_have_executed()).await
}

/// Attaches to a program that may or may not exist.
///
/// # Errors
///
/// As [`start`].
pub(crate) async fn attach(
    target: &ExecTarget,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<OpenedStream, ExecError> {
    match open(target, attach, None, deadline).await {
        Err(error) if is_lost(&error) => {
            persist(target, attach, Instant::now(), deadline, false).await
        }
        settled => settled,
    }
}

/// Re-attaches to a program of the same instance of the agent, to send a final message.
///
/// # Errors
///
/// As [`start`].
pub(super) async fn once_more(
    target: &ExecTarget,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<OpenedStream, ExecError> {
    persist(target, attach, Instant::now(), deadline, true).await
}

/// Re-attaches to a program whose stream broke at `since`, for as long as the agent keeps the program for that (`grace`).
///
/// # Errors
///
/// [`ExecError::Lost`]: re-attaching is impossible.
pub(crate) async fn come_back(
    target: &ExecTarget,
    attach: &ExecAttach,
    since: Instant,
    grace: Duration,
) -> Result<OpenedStream, ExecError> {
    let opened = persist(target, attach, since, since + grace, true).await;
    opened.map_err(|error| match error {
        ExecError::Lost { .. } => error,
        ExecError::Call(CallError::Refused(AgentRefusal::Answer(error))) => {
            ExecError::lost(error.message)
        }
        error => ExecError::lost(format!(
            "the connection to the agent was lost and re-attaching failed: {error}"
        )),
    })
}

/// Repeats a request to the same instance of the agent until it answers, or until `deadline`, at most
/// [`MAX_REATTACH_GRACE_MS`] after `since`. `sent` is true if an earlier request may have reached the agent; then
/// the error states that.
async fn persist<C: Call<Reply = ExecAttached>>(
    target: &ExecTarget,
    call: &C,
    since: Instant,
    deadline: Instant,
    mut sent: bool,
) -> Result<OpenedStream, ExecError> {
    let until = deadline.min(since + Duration::from_millis(MAX_REATTACH_GRACE_MS));
    let mut failures = 0;
    loop {
        if target.vm.client().is_gone() && sent {
            return Err(ExecError::lost("the VM is gone"));
        }
        match open(target, call, Some(&target.instance), until).await {
            Err(ExecError::Lost { .. }) if !sent => {
                return Err(TransportError::Lost { sent }.into());
            }
            Err(error) if sent && let Some(reason) = death(&error) => {
                return Err(ExecError::lost(reason));
            }
            Err(error) if may_pass(&error) => {
                sent |= error.may_have_executed();
                if Instant::now() >= until {
                    return Err(if sent { as_sent(&error) } else { error });
                }
            }
            settled => return settled,
        }
        failures += 1;
        let pause = backoff(failures, rand::rng().random()).min(MAX_PAUSE);
        sleep_until(until.min(Instant::now() + pause)).await;
    }
}

/// Opens a stream to a program; if `only` is given, only on that instance of the agent.
async fn open<C: Call<Reply = ExecAttached>>(
    target: &ExecTarget,
    call: &C,
    only: Option<&AgentInstance>,
    deadline: Instant,
) -> Result<OpenedStream, ExecError> {
    let deadline = deadline.min(Instant::now() + ATTEMPT);
    let opened = target.vm.client().open(call, only, deadline).await;
    let opened = opened.map_err(|error| match error {
        OpenError::Replaced | OpenError::Restored => ExecError::lost(error.to_string()),
        OpenError::Call(error) => error.into(),
    })?;
    check_attached(&opened.0)?;
    Ok(opened)
}

/// Reports whether the connection broke.
fn is_lost(error: &ExecError) -> bool {
    matches!(error, ExecError::Call(CallError::Transport(TransportError::Lost { .. })))
}

/// Describes a failure which means that the guest, and all its programs with it, has ended; `None` for all others.
fn death(error: &ExecError) -> Option<&'static str> {
    let ExecError::Call(CallError::Transport(TransportError::Unreachable { failure, .. })) = error
    else {
        return None;
    };
    match failure {
        Failure::NoListener | Failure::NoSocket => Some("the VMM is gone"),
        Failure::Rebooting => Some("the guest is rebooting"),
        Failure::PoweredOff => Some("the guest was powered off"),
        _ => None,
    }
}

/// Converts the last failure to one of a request that was sent.
fn as_sent(error: &ExecError) -> ExecError {
    let sent = true;
    match error {
        ExecError::Call(CallError::Transport(TransportError::TimedOut { .. })) => {
            TransportError::TimedOut { sent }.into()
        }
        _ => TransportError::Lost { sent }.into(),
    }
}

/// Reports whether another attempt may succeed.
fn may_pass(error: &ExecError) -> bool {
    let ExecError::Call(error) = error else { return false };
    match error {
        CallError::Transport(error) => match error {
            TransportError::Lost { .. }
            | TransportError::TimedOut { .. }
            | TransportError::Unreachable { .. }
            | TransportError::Overloaded
            | TransportError::Exhausted => true,
            TransportError::Protocol(_) | TransportError::Encode(_) | TransportError::NoRoom => {
                false
            }
        },
        CallError::Refused(AgentRefusal::Answer(error)) => {
            matches!(error.code, Some(AgentCode::Busy | AgentCode::Restoring))
        }
        CallError::Refused(AgentRefusal::TooOld(_) | AgentRefusal::OtherIncarnation(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable(failure: Failure) -> ExecError {
        TransportError::Unreachable { failure, message: "m".into() }.into()
    }

    #[test]
    fn only_the_end_of_the_guest_ends_the_attempts_to_re_attach() {
        for failure in
            [Failure::NoListener, Failure::NoSocket, Failure::Rebooting, Failure::PoweredOff]
        {
            assert!(death(&unreachable(failure)).is_some_and(|why| !why.is_empty()), "{failure:?}");
        }
        for failure in [Failure::NoAgent, Failure::AgentSilent, Failure::PausedOrHung] {
            assert_eq!(death(&unreachable(failure)), None, "{failure:?}");
        }
        assert_eq!(death(&TransportError::Lost { sent: true }.into()), None);
        assert_eq!(death(&TransportError::TimedOut { sent: true }.into()), None);
    }

    #[test]
    fn the_last_failure_of_a_request_that_was_sent_says_so_and_keeps_a_timeout() {
        let sent = |error: TransportError| match as_sent(&error.into()) {
            ExecError::Call(CallError::Transport(error)) => error,
            other => panic!("{other:?}"),
        };
        assert!(matches!(
            sent(TransportError::TimedOut { sent: false }),
            TransportError::TimedOut { sent: true }
        ));
        for error in [TransportError::Lost { sent: false }, TransportError::Overloaded] {
            assert!(matches!(sent(error), TransportError::Lost { sent: true }));
        }
    }
}
