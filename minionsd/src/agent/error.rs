//! Failures of a call to an agent.

use super::checkout_error::CheckoutError;
use super::gate::DialRefusal;
use super::precondition::IncarnationId;
use super::status::RefusalReason;
use minions_api::vm::Failure;
use minions_proto::AgentError;
use minions_proto::connection::ProtocolError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::frame::EncodeError;
use minions_proto::message::Feature;
use std::fmt;

/// Failure of a call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The request was not sent, or no valid reply was received.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The agent does not do what was requested.
    #[error(transparent)]
    Refused(#[from] AgentRefusal),
}

/// Failure to send a request, or to receive its reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// The agent cannot be reached.
    #[error("agent cannot be reached: {message}")]
    Unreachable {
        /// Layer that failed.
        failure: Failure,
        /// Description of the failure for people.
        message: String,
    },
    /// All connections to this VM are in use.
    #[error("all connections to this VM are in use")]
    Overloaded,
    /// The daemon has no descriptor for a connection to the VM.
    #[error("no descriptor left")]
    Exhausted,
    /// The daemon has no memory for the reply.
    #[error("no memory for the reply")]
    NoRoom,
    /// The request does not fit a frame.
    #[error("request cannot be encoded")]
    Encode(#[source] EncodeError),
    /// The deadline passed.
    #[error("no answer before the deadline")]
    TimedOut {
        /// True if the request may have reached the agent.
        sent: bool,
    },
    /// The connection broke.
    #[error("connection lost")]
    Lost {
        /// True if the request may have reached the agent.
        sent: bool,
    },
    /// The reply violates the protocol.
    #[error("agent violated the protocol")]
    Protocol(#[source] ProtocolError),
}

/// Refusal of a request, by the agent or on its behalf.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentRefusal {
    /// The agent answered with an error.
    #[error("agent refused")]
    Answer(#[source] AgentError),
    /// The version of the agent does not support the request. Nothing was sent.
    #[error("agent lacks {0}")]
    TooOld(MissingFeature),
    /// The call is for another incarnation of the VM than this one, which answered. Nothing was sent.
    #[error("another incarnation of the VM answered")]
    OtherIncarnation(Option<IncarnationId>),
}

/// Feature that a request needs and that the agent does not announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingFeature {
    pub(crate) feature: Feature,
    /// Fields of the request that need it. Empty: the request as a whole does.
    pub(crate) fields: Vec<String>,
}

/// Completes "this agent version does not support …".
impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fields.as_slice() {
            [] => f.write_str(self.feature.phrase())?,
            fields => write!(f, "`{}`", fields.join("`, `"))?,
        }
        write!(f, " (feature `{}`)", self.feature)
    }
}

impl AgentRefusal {
    /// Creates the refusal for an agent without `feature`, which `fields` of the request need; or, without fields, the
    /// request as a whole.
    pub(crate) fn too_old(feature: Feature, fields: &[&str]) -> Self {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        Self::TooOld(MissingFeature { feature, fields })
    }
}

impl CallError {
    /// Reports whether the guest may have done what was requested.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::Transport(error) => error.may_have_executed(),
            Self::Refused(refusal) => refusal.may_have_executed(),
        }
    }
}

impl TransportError {
    /// Reports whether the guest may have done what was requested.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::TimedOut { sent } | Self::Lost { sent } => *sent,
            Self::Protocol(_) | Self::NoRoom => true,
            Self::Unreachable { .. } | Self::Overloaded | Self::Exhausted | Self::Encode(_) => {
                false
            }
        }
    }
}

impl AgentRefusal {
    /// Reports whether the guest may have done a part of what was requested.
    fn may_have_executed(&self) -> bool {
        match self {
            // Only an agent that has restored everything says so.
            Self::Answer(error) if error.restored == Some(true) => false,
            Self::Answer(error) => refused_after_a_part(error.code),
            Self::TooOld(_) | Self::OtherIncarnation(_) => false,
        }
    }
}

/// Reports whether an agent that refuses with this code may have done a part of the request. A base agent sends no
/// code.
fn refused_after_a_part(code: Option<AgentCode>) -> bool {
    match code {
        Some(
            AgentCode::BadRequest
            | AgentCode::Unsupported
            | AgentCode::InvalidArgument
            | AgentCode::Forbidden
            | AgentCode::FrameTooLarge
            | AgentCode::CommandNotFound
            | AgentCode::CommandNotExecutable
            | AgentCode::UserNotFound
            | AgentCode::CwdNotFound
            | AgentCode::ArgumentListTooLong
            | AgentCode::ExecGone
            | AgentCode::ExecConflict
            | AgentCode::ExecEnded
            | AgentCode::ExecFailed
            | AgentCode::ForwardFailed
            | AgentCode::NetworkPending
            | AgentCode::NetworkChangeGone
            | AgentCode::Quiesced
            | AgentCode::NotQuiesced
            | AgentCode::Restoring
            | AgentCode::Busy,
        ) => false,
        Some(
            AgentCode::NetworkFailed
            | AgentCode::IoFailed
            | AgentCode::ClockFailed
            | AgentCode::TakenOver
            | AgentCode::ExecNotEnded
            | AgentCode::QuiesceFailed
            | AgentCode::Internal
            | AgentCode::Other,
        )
        | None => true,
    }
}

impl From<CheckoutError> for TransportError {
    fn from(error: CheckoutError) -> Self {
        match error {
            CheckoutError::Exhausted => Self::Overloaded,
            CheckoutError::TimedOut | CheckoutError::Barred(DialRefusal::Unanswered) => {
                Self::TimedOut { sent: false }
            }
            CheckoutError::Barred(DialRefusal::Refused(RefusalReason { failure, message })) => {
                Self::Unreachable { failure, message }
            }
            CheckoutError::Connect { failure: Failure::DaemonExhausted, .. } => Self::Exhausted,
            CheckoutError::Connect { failure, message } => Self::Unreachable { failure, message },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_feature_is_described_by_the_fields_that_need_it_or_by_its_phrase() {
        let text = |fields| AgentRefusal::too_old(Feature::Clock, fields).to_string();
        assert_eq!(text(&[]), "agent lacks setting the guest's clock (feature `clock`)");
        assert_eq!(text(&["a", "b"]), "agent lacks `a`, `b` (feature `clock`)");
    }

    #[test]
    fn a_refusal_says_whether_a_part_of_the_request_may_have_been_done() {
        let answer = |code: Option<AgentCode>, restored| {
            let error = AgentError { code, restored, ..AgentError::new(AgentCode::Other, "m") };
            CallError::from(AgentRefusal::Answer(error)).may_have_executed()
        };
        assert!(answer(Some(AgentCode::NetworkFailed), None));
        assert!(answer(Some(AgentCode::NetworkFailed), Some(false)));
        assert!(!answer(Some(AgentCode::NetworkFailed), Some(true)), "all of it was restored");
        assert!(answer(None, None), "a base agent sends no code");
        assert!(!answer(Some(AgentCode::CommandNotFound), None));
        let too_old = AgentRefusal::too_old(Feature::Clock, &[]);
        assert!(!CallError::from(too_old).may_have_executed());
        assert!(!CallError::from(AgentRefusal::OtherIncarnation(None)).may_have_executed());
    }
}
