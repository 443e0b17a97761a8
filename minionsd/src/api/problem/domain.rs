//! Conversion of failures of calls and programs to problems.

use super::api_error::{ApiError, code_of_value};
use crate::agent::{AgentRefusal, CallError, IncarnationId, MissingFeature, TransportError};
use crate::budget::NoRoom;
use crate::exec::ExecError;
use minions_api::vm::Failure;
use minions_api::{ErrorCode, Problem, VmName};
use minions_proto::AgentError;
use minions_proto::error::ErrorCode as AgentCode;
use minions_proto::frame::EncodeError;

/// HTTP status of an `agent_error` for an operation that the agent was started without: the answer is the same for
/// every retry and every caller.
pub(super) const REFUSED_BY_THE_AGENT: u16 = 501;

impl ApiError {
    /// Converts the failure to run a program in `vm`. A request that does not fit a frame becomes
    /// `argument_list_too_long`, because only the arguments and the environment can make it that long.
    pub(in super::super) fn exec(vm: &VmName, error: ExecError) -> Self {
        let may_have_executed = error.may_have_executed();
        let problem = match error {
            ExecError::Call(CallError::Transport(TransportError::Encode(EncodeError::Frame(
                _,
            )))) => Problem::new(
                ErrorCode::ArgumentListTooLong,
                "arguments and environment are longer than 1 MiB when encoded; pass large data as input or in a file",
            ),
            ExecError::Call(error) => return Self::call(vm, error),
            ExecError::Lost { reason } => {
                let detail = format!("the program is lost: {reason}");
                Problem::new(ErrorCode::ConnectionLost, detail)
            }
            ExecError::Stream(error) => protocol_error(&error),
            ExecError::NoRoom(NoRoom) => no_room(),
        };
        Self::in_vm(vm, problem, may_have_executed)
    }

    /// Converts the failure of a call to the agent of `vm`.
    pub(in super::super) fn call(vm: &VmName, error: CallError) -> Self {
        let may_have_executed = error.may_have_executed();
        let problem = match error {
            CallError::Transport(error) => transport(error),
            CallError::Refused(AgentRefusal::Answer(error)) => refused(error),
            CallError::Refused(AgentRefusal::TooOld(missing)) => too_old(missing),
            CallError::Refused(AgentRefusal::OtherIncarnation(answered)) => replaced(answered),
        };
        Self::in_vm(vm, problem, may_have_executed)
    }

    fn in_vm(vm: &VmName, mut problem: Problem, may_have_executed: bool) -> Self {
        problem.vm = Some(vm.clone());
        problem.may_have_executed = may_have_executed;
        Self(Box::new(problem))
    }
}

/// Returns the problem for a call to another incarnation than the one that answered.
fn replaced(answered: Option<IncarnationId>) -> Problem {
    let detail = match answered {
        Some(id) => format!(
            "the incarnation that answers is {}, not the one of `If-Incarnation`: the guest has rebooted, its agent was \
             restarted, or another VM has the name",
            id.into_text()
        ),
        None => {
            "the agent that answers is a base agent, which no `If-Incarnation` matches".to_owned()
        }
    };
    Problem::new(ErrorCode::VmReplaced, detail)
}

/// Converts a failure to send a request, or to receive its reply.
fn transport(error: TransportError) -> Problem {
    match error {
        TransportError::Unreachable { failure, message } => {
            let mut problem = Problem::new(ErrorCode::AgentUnreachable, message);
            problem.failure = Some(failure);
            problem
        }
        TransportError::Overloaded => Problem::new(
            ErrorCode::Overloaded,
            "all connections to this VM are in use; retry when another call has ended",
        ),
        TransportError::Exhausted => Problem::new(
            ErrorCode::Overloaded,
            "minionsd has no file descriptor left for a connection to the VM; retry when other calls have ended, or \
             raise the limit of open files",
        ),
        TransportError::NoRoom => no_room(),
        TransportError::TimedOut { sent } => {
            let detail = if sent {
                "the agent did not answer before the deadline; the operation may still be running"
            } else {
                "no connection to the agent was available before the deadline; nothing was sent"
            };
            Problem::new(ErrorCode::AgentTimeout, detail)
        }
        TransportError::Lost { sent } => {
            let detail = if sent {
                "the connection to the agent was lost before the reply was complete"
            } else {
                "the connection to the agent was lost before the request was sent"
            };
            Problem::new(ErrorCode::ConnectionLost, detail)
        }
        TransportError::Protocol(error) => protocol_error(&error),
        TransportError::Encode(EncodeError::Frame(error)) => Problem::new(
            ErrorCode::PayloadTooLarge,
            format!("the request does not fit a frame: {error}"),
        ),
        TransportError::Encode(EncodeError::Json(error)) => {
            Problem::new(ErrorCode::Internal, error.to_string())
        }
    }
}

fn protocol_error(error: &dyn std::error::Error) -> Problem {
    Problem::new(ErrorCode::AgentProtocolError, format!("the agent violated the protocol: {error}"))
}

fn no_room() -> Problem {
    Problem::new(
        ErrorCode::Overloaded,
        "minionsd's memory budget for replies and collected output is used up; retry later, stream the program's \
         output, or keep less of it (`max_output_bytes`)",
    )
}

fn too_old(missing: MissingFeature) -> Problem {
    let detail = format!("this agent version does not support {missing}; upgrade minions-agent");
    let mut problem = Problem::new(ErrorCode::AgentTooOld, detail);
    problem.field = missing.fields.into_iter().next();
    problem
}

/// Converts an error that the agent reported. A base agent sends no code, only the message.
fn refused(error: AgentError) -> Problem {
    let code = match error.code {
        Some(AgentCode::InvalidArgument) => {
            code_of_value(error.field.as_deref().unwrap_or_default())
        }
        Some(AgentCode::CommandNotFound) => ErrorCode::CommandNotFound,
        Some(AgentCode::CommandNotExecutable) => ErrorCode::CommandNotExecutable,
        Some(AgentCode::UserNotFound) => ErrorCode::UserNotFound,
        Some(AgentCode::CwdNotFound) => ErrorCode::CwdNotFound,
        Some(AgentCode::ArgumentListTooLong) => ErrorCode::ArgumentListTooLong,
        Some(AgentCode::ExecGone) => ErrorCode::ExecGone,
        Some(
            AgentCode::ExecConflict
            | AgentCode::ExecEnded
            | AgentCode::ExecNotEnded
            | AgentCode::TakenOver,
        ) => ErrorCode::ExecConflict,
        Some(AgentCode::ForwardFailed) => ErrorCode::ForwardFailed,
        Some(AgentCode::NetworkFailed) => ErrorCode::NetworkFailed,
        Some(AgentCode::NetworkPending) => ErrorCode::NetworkPending,
        Some(AgentCode::NetworkChangeGone) => ErrorCode::NetworkChangeGone,
        Some(AgentCode::Quiesced) => ErrorCode::Quiesced,
        Some(AgentCode::NotQuiesced) => ErrorCode::NotQuiesced,
        Some(AgentCode::QuiesceFailed) => ErrorCode::QuiesceFailed,
        Some(AgentCode::Busy) => ErrorCode::Overloaded,
        Some(AgentCode::Restoring) => ErrorCode::AgentUnreachable,
        Some(AgentCode::Unsupported) => ErrorCode::AgentTooOld,
        // A frame of this daemon that the agent cannot read is the agent's error, not the caller's.
        Some(
            AgentCode::BadRequest
            | AgentCode::Forbidden
            | AgentCode::FrameTooLarge
            | AgentCode::ExecFailed
            | AgentCode::IoFailed
            | AgentCode::ClockFailed
            | AgentCode::Internal
            | AgentCode::Other,
        )
        | None => ErrorCode::AgentError,
    };
    let mut problem = Problem::new(code, error.message);
    if error.code == Some(AgentCode::Forbidden) {
        problem.status = REFUSED_BY_THE_AGENT;
    }
    problem.failure = (error.code == Some(AgentCode::Restoring)).then_some(Failure::Restoring);
    problem.step = error.step;
    problem.restored = error.restored;
    problem.field = error.field.or_else(|| field_of(code).map(str::to_owned));
    problem.agent_code = error.code.and_then(|code| {
        serde_json::to_value(code).ok().and_then(|code| code.as_str().map(str::to_owned))
    });
    problem
}

/// Returns the request field that a code refers to, if there is only one.
fn field_of(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::UserNotFound => Some("user"),
        ErrorCode::CwdNotFound => Some("cwd"),
        ErrorCode::ExecGone | ErrorCode::ExecConflict => Some("id"),
        _ => None,
    }
}
