//! Opening the first stream to a program, and re-attaching after a stream broke.
//!
//! Both requests may be repeated: a program has an id, so the same instance of the agent does not start it twice.
//! Another instance would, so only the first attempt goes to whichever instance answers ([`AgentClient::open`]).
//!
//! [`AgentClient::open`]: crate::agent::AgentClient::open

use super::Place;
use crate::agent::{AgentStream, CallError};
use crate::vm::status::backoff;
use minions_api::vm::Failure;
use minions_proto::Call;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::message::{
    EXEC_LIMITS_FEATURE, ExecAttach, ExecAttached, ExecStart, REATTACH_GRACE,
};
use rand::RngExt;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Deadline of one attempt. An agent starts or finds a program at once, unless its guest is short of resources.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Maximum pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The agent's reply to start or attach, and the program's stream.
pub(crate) type Opened = (ExecAttached, AgentStream);

/// Starts a program, which must have an id.
///
/// # Errors
///
/// The agent refused, or could not be reached. [`CallError::may_have_executed`] is accurate for both.
pub(crate) async fn start(
    place: &Place,
    start: &ExecStart,
    deadline: Instant,
) -> Result<Opened, CallError> {
    let client = place.vm.client();
    if let Some(field) = start.limit()
        && !client.has_feature(EXEC_LIMITS_FEATURE, deadline).await?
    {
        let needs = format!("`{field}` for programs");
        return Err(CallError::TooOld { needs, field: Some(field.to_owned()) });
    }
    let error = match client.open(start, None, attempt(deadline)).await {
        Err(error) if may_pass(&error) => error,
        settled => return settled,
    };
    if Instant::now() >= deadline {
        return Err(error);
    }
    if !error.may_have_executed() && !matches!(error, CallError::Lost { .. }) {
        // A limit, or an agent that cannot be reached, rather than a lost connection: the caller decides.
        return Err(error);
    }
    persist(place, start, Instant::now(), deadline, error.may_have_executed()).await
}

/// Attaches to a program that may or may not exist.
///
/// # Errors
///
/// As [`start`].
pub(crate) async fn attach(
    place: &Place,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<Opened, CallError> {
    let client = place.vm.client();
    match client.open(attach, None, attempt(deadline)).await {
        Err(CallError::Lost { .. }) => {
            persist(place, attach, Instant::now(), deadline, false).await
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
    place: &Place,
    attach: &ExecAttach,
    deadline: Instant,
) -> Result<Opened, CallError> {
    persist(place, attach, Instant::now(), deadline, true).await
}

/// Re-attaches to a program whose stream broke at `since`.
///
/// # Errors
///
/// [`CallError::ExecLost`]: re-attaching is impossible.
pub(crate) async fn come_back(
    place: &Place,
    attach: &ExecAttach,
    since: Instant,
) -> Result<Opened, CallError> {
    let opened = persist(place, attach, since, since + REATTACH_GRACE, true).await;
    opened.map_err(|error| match error {
        CallError::ExecLost { .. } => error,
        CallError::Agent(error) => CallError::ExecLost { reason: error.message },
        error => CallError::ExecLost {
            reason: format!(
                "the connection to the agent was lost and re-attaching failed: {error}"
            ),
        },
    })
}

/// Repeats a request to the same instance of the agent until it answers, or no longer keeps the program for re-attaching
/// (`since` + [`REATTACH_GRACE`]). `sent` tells whether an earlier request may have reached the agent; the error then
/// says so.
async fn persist<C: Call<Reply = ExecAttached>>(
    place: &Place,
    call: &C,
    since: Instant,
    deadline: Instant,
    mut sent: bool,
) -> Result<Opened, CallError> {
    let until = deadline.min(since + REATTACH_GRACE);
    let mut failures = 0;
    loop {
        if place.vm.client().is_gone() && sent {
            return Err(CallError::ExecLost { reason: "the VM is gone".into() });
        }
        let opened = place.vm.client().open(call, Some(&place.instance), attempt(until)).await;
        match opened {
            Err(CallError::ExecLost { .. }) if !sent => return Err(CallError::Lost { sent }),
            Err(CallError::Unreachable { failure, .. }) if sent && is_death(failure) => {
                return Err(CallError::ExecLost { reason: death(failure).into() });
            }
            Err(error) if may_pass(&error) => {
                sent |= error.may_have_executed();
                if Instant::now() >= until {
                    return Err(if sent { as_sent(error) } else { error });
                }
            }
            settled => return settled,
        }
        failures += 1;
        let pause = backoff(failures, rand::rng().random()).min(MAX_PAUSE);
        sleep_until(until.min(Instant::now() + pause)).await;
    }
}

/// Reports whether the failure means that the guest has ended, and all its programs with it.
fn is_death(failure: Failure) -> bool {
    matches!(
        failure,
        Failure::NoListener | Failure::NoSocket | Failure::Rebooting | Failure::PoweredOff
    )
}

/// The end of the guest, as the end of "the program is lost: …".
fn death(failure: Failure) -> &'static str {
    match failure {
        Failure::Rebooting => "its guest reboots",
        Failure::PoweredOff => "its guest was powered off",
        _ => "its VMM is gone",
    }
}

/// Converts the last failure to that of a request that was sent.
fn as_sent(error: CallError) -> CallError {
    match error {
        CallError::TimedOut { .. } => CallError::TimedOut { sent: true },
        _ => CallError::Lost { sent: true },
    }
}

fn attempt(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + ATTEMPT)
}

/// Reports whether another attempt may succeed.
fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Lost { .. }
        | CallError::TimedOut { .. }
        | CallError::Unreachable { .. }
        | CallError::Overloaded
        | CallError::Exhausted => true,
        CallError::Agent(error) => error.code == Some(AgentCode::Busy),
        CallError::Protocol(_)
        | CallError::TooOld { .. }
        | CallError::Encode(_)
        | CallError::ExecLost { .. }
        | CallError::Stream(_)
        | CallError::NoRoom => false,
    }
}
