//! Settings of a session.

use crate::failure::Failure;
use crate::link::FirstMessage;
use crate::target::Target;
use minions_api::ErrorCode;
use minions_proto::message::REATTACH_GRACE;
use std::time::Duration;

/// Default time for re-attaching to a program that outlives its client.
const DETACHED_PATIENCE: Duration = Duration::from_secs(60);

/// Settings of a session, fixed before it begins.
#[derive(Debug)]
pub(crate) struct SessionPlan {
    /// First message of the stream.
    pub(crate) opening: FirstMessage,
    /// The id in `opening` was generated here, and may be left out for an agent without support for ids.
    pub(crate) minted: bool,
    /// Standard input is passed on to the program.
    pub(crate) interactive: bool,
    /// The program has a terminal.
    pub(crate) tty: bool,
    /// The local terminal is in raw mode and passes every key on.
    pub(crate) raw: bool,
    /// The program continues when this client leaves.
    pub(crate) outlives_us: bool,
    /// Command that re-attaches to the program, without its id.
    pub(crate) come_back: String,
    /// Value of `--timeout`.
    pub(crate) timeout: Option<Duration>,
}

/// Returns the command that re-attaches to a program of `target`, without its id.
pub(crate) fn come_back(target: &Target) -> String {
    match target {
        Target::Vm(_, vm) => format!("minionsctl attach {vm}"),
        Target::Agent(address) => format!("minionsctl {address} attach"),
    }
}

impl SessionPlan {
    /// Returns the time for re-attaching after a loss: as long as the program may exist.
    pub(super) fn patience(&self) -> Duration {
        if self.outlives_us { self.timeout.unwrap_or(DETACHED_PATIENCE) } else { REATTACH_GRACE }
    }

    /// Reports whether the opening has an id, so that the program can be re-attached.
    pub(super) fn has_id(&self) -> bool {
        match &self.opening {
            FirstMessage::Start(request) => request.id.is_some(),
            FirstMessage::Attach(_) => true,
        }
    }

    /// Removes a generated id if `failure` says that the agent does not support ids. Returns whether it did.
    pub(super) fn leave_out_id(&mut self, failure: &Failure) -> bool {
        let refused = matches!(
            failure,
            Failure::Problem(problem)
                if problem.code == ErrorCode::AgentTooOld && problem.field.as_deref() == Some("id")
        );
        match &mut self.opening {
            FirstMessage::Start(request) if refused && self.minted => request.id.take().is_some(),
            _ => false,
        }
    }
}
