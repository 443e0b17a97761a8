//! What a session is to be like.

use crate::failure::Failure;
use crate::link::Opening;
use crate::target::Target;
use minions_api::ErrorCode;
use minions_proto::message::REATTACH_GRACE;
use std::time::Duration;

/// For a program that goes on without us, if the user doesn't say.
const DETACHED_PATIENCE: Duration = Duration::from_secs(60);

/// Decided before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How the stream begins.
    pub(crate) opening: Opening,
    /// Whether the id in it is ours, and may be left out for an agent that can't honour it.
    pub(crate) minted: bool,
    /// Whether our input is the program's.
    pub(crate) interactive: bool,
    /// Whether the program has a terminal.
    pub(crate) tty: bool,
    /// Whether ours passes every key on to it.
    pub(crate) raw: bool,
    /// Whether the program goes on when we go.
    pub(crate) outlives_us: bool,
    /// How to come back to it, before its id.
    pub(crate) come_back: String,
    /// The user's own limit.
    pub(crate) timeout: Option<Duration>,
}

/// The command that comes back to a program there, before its id.
pub(crate) fn come_back(target: &Target) -> String {
    match target {
        Target::Vm(_, vm) => format!("minionsctl attach {vm}"),
        Target::Agent(address) => format!("minionsctl {address} attach"),
    }
}

impl Plan {
    /// How long a lost stream is worth looking for: as long as the program is there.
    pub(super) fn patience(&self) -> Duration {
        if self.outlives_us { self.timeout.unwrap_or(DETACHED_PATIENCE) } else { REATTACH_GRACE }
    }

    /// Whether the agent can find the program again.
    pub(super) fn has_id(&self) -> bool {
        match &self.opening {
            Opening::Start(request) => request.id.is_some(),
            Opening::Attach(_) => true,
        }
    }

    /// For an agent that knows no ids, if the user didn't ask for one either.
    pub(super) fn leave_out_id(&mut self, failure: &Failure) -> bool {
        let refused = matches!(
            failure,
            Failure::Problem(problem)
                if problem.code == ErrorCode::AgentTooOld && problem.field.as_deref() == Some("id")
        );
        match &mut self.opening {
            Opening::Start(request) if refused && self.minted => request.id.take().is_some(),
            _ => false,
        }
    }
}
