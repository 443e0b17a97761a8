//! Request dispatch: decodes a frame and encodes its reply. One file for each kind of request, which validates,
//! delegates, and maps errors to replies.

mod configure_network;
pub(crate) mod disks;
pub(crate) mod exec;
pub(crate) mod file;
mod health;
mod power;
mod proc_files;
mod quiesce;
mod report_sample;
pub(crate) mod report_status;
mod restore;
mod set_clock;
mod write_file;

pub(crate) use configure_network::failed as network_failure;
pub(crate) use set_clock::answer as set_clock;

use crate::agent::Agent;
use crate::capability::Capability;
use crate::exec::ExecTail;
use crate::forward::{ForwardError, OpenForward, OpenListener};
use crate::task::BoxedTask;
use minions_proto::frame::EncodeError;
use minions_proto::message::{
    ExecAttached, ForwardListening, ForwardOpened, encode_error, encode_reply,
};
use minions_proto::{AgentError, ErrorCode, Request};
use serde::Serialize;

/// Maximum length of an error message, in bytes before JSON escapes. A message may quote the host's
/// request, which may be as long as a frame.
const MAX_MESSAGE_LEN: usize = 4096;

/// Encoded reply to a request, and what follows it.
pub(crate) enum RequestAnswer {
    /// A reply, then the next request.
    Reply(Vec<u8>),
    /// A reply, then a stream for the rest of the connection.
    Stream(Vec<u8>, ExecTail),
    /// A reply, then a connection to a target for the rest of the connection.
    Forward(Vec<u8>, OpenForward),
    /// A reply, then a listener for the rest of the connection.
    Listener(Vec<u8>, Box<OpenListener>),
    /// A reply, then an action that must not run before it. The action runs even if the reply did not arrive.
    ReplyThen(Vec<u8>, BoxedTask),
}

/// Answers one request. Every error is answered with a frame.
///
/// Dropping the future ends a program of a base `exec`; see each request for the others.
pub(crate) async fn answer(agent: &Agent, payload: &[u8]) -> RequestAnswer {
    let request = match Request::decode(payload) {
        Ok(request) => request,
        Err(error) => return RequestAnswer::Reply(refuse(error.into())),
    };
    let needed = Capability::needed_by(&request);
    tracing::debug!(request = request.type_name(), "request");
    if !agent.capabilities().permit(&request) {
        return RequestAnswer::Reply(refuse(AgentError::not_allowed(needed.name())));
    }
    if let Some(refusal) = agent.quiescer().refusal(&request) {
        return RequestAnswer::Reply(refuse(refusal));
    }
    if !matches!(request, Request::HealthCheck(_) | Request::TokenCheck(_) | Request::Restore(_))
        && let Some(refusal) = agent.generations().refusal()
    {
        return RequestAnswer::Reply(refuse(refusal));
    }
    let executor = agent.executor();
    RequestAnswer::Reply(match request {
        Request::ExecStart(call) => return stream(exec::start(executor, *call).await),
        Request::FileStart(call) => {
            return stream(file::start(executor, agent.file_program(), *call).await);
        }
        Request::ForwardOpen(call) => return forward(agent.forward().open(&call).await),
        Request::ForwardAccept(call) => return forward(agent.forward().accept(&call)),
        Request::ForwardListen(call) => return listener(agent.forward().listen(&call).await),
        Request::ExecAttach(call) => return stream(exec::attach(executor, call).await),
        Request::Power(call) => {
            let (done, then) = power::answer(call);
            return RequestAnswer::ReplyThen(reply(&Ok(done)), Box::pin(then));
        }
        Request::HealthCheck(_) => reply(&Ok(health::answer(agent))),
        Request::TokenCheck(call) => {
            agent.generations().probed(&call.vmm_token);
            reply(&Ok(health::answer(agent)))
        }
        Request::Restore(call) => reply(&restore::answer(agent, *call).await),
        Request::ConfigureNetwork(call) => {
            reply(&configure_network::base(agent.network(), &call).await)
        }
        Request::ChangeNetwork(call) => {
            reply(&configure_network::rich(agent.network(), &call).await)
        }
        Request::NetworkConfirm(call) => {
            reply(&configure_network::confirm(agent.network(), &call).await)
        }
        Request::ReadNetwork(_) => reply(&configure_network::read(agent.network()).await),
        Request::Exec(call) => reply(&exec::run(executor, call).await),
        Request::ExecList(_) => reply(&Ok(executor.list())),
        Request::ExecInspect(call) => reply(&exec::inspect(executor, call).await),
        Request::ExecSignal(call) => reply(&exec::signal(executor, call).await),
        Request::ExecRemove(call) => reply(&exec::remove(executor, call).await),
        Request::ReportStatus(_) => reply(&Ok(agent.status().report().await)),
        Request::ReportSample(_) => {
            reply(&Ok(report_sample::answer(agent.status().disks(), executor).await))
        }
        Request::WriteFile(call) => reply(&write_file::answer(call).await),
        Request::SetClock(call) => reply(&set_clock::answer(call)),
        Request::Quiesce(call) => reply(&quiesce::quiesce(agent.quiescer(), call).await),
        Request::Thaw(call) => reply(&quiesce::thaw(agent.quiescer(), call).await),
    })
}

fn stream(opened: Result<(ExecAttached, ExecTail), AgentError>) -> RequestAnswer {
    match opened {
        Ok((attached, tail)) => RequestAnswer::Stream(reply(&Ok(attached)), tail),
        Err(error) => RequestAnswer::Reply(refuse(error)),
    }
}

fn forward(opened: Result<OpenForward, ForwardError>) -> RequestAnswer {
    match opened {
        Ok(forward) => {
            let opened = ForwardOpened { address: forward.address.clone() };
            RequestAnswer::Forward(reply(&Ok(opened)), forward)
        }
        Err(error) => RequestAnswer::Reply(refuse(error.into())),
    }
}

fn listener(opened: Result<OpenListener, ForwardError>) -> RequestAnswer {
    match opened {
        Ok(listener) => {
            let (id, address) = (listener.id.clone(), listener.address.clone());
            let listening = ForwardListening { listener: id, address };
            RequestAnswer::Listener(reply(&Ok(listening)), Box::new(listener))
        }
        Err(error) => RequestAnswer::Reply(refuse(error.into())),
    }
}

/// Encodes the result of a request. A reply that does not fit a frame becomes an error: the host always gets
/// one reply.
fn reply<T: Serialize>(result: &Result<T, AgentError>) -> Vec<u8> {
    match result {
        Ok(body) => encode_reply(body).unwrap_or_else(|error| refuse(too_long(&error))),
        Err(error) => refuse(error.clone()),
    }
}

fn too_long(error: &EncodeError) -> AgentError {
    AgentError::new(ErrorCode::Internal, format!("cannot encode the reply: {error}"))
}

/// Encodes an error reply; truncates its message if it is too long.
pub(crate) fn refuse(mut error: AgentError) -> Vec<u8> {
    tracing::debug!(code = ?error.code, errno = ?error.errno, "request refused");
    if error.message.len() > MAX_MESSAGE_LEN {
        let end = error.message.floor_char_boundary(MAX_MESSAGE_LEN);
        error.message.truncate(end);
        error.message.push('…');
    }
    encode_error(&error).expect("a message of 4 KiB fits a frame of 1 MiB, however it is escaped")
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::frame::{MAX_FRAME_LEN, PREFIX_LEN};

    fn text(frame: &[u8]) -> &str {
        std::str::from_utf8(&frame[PREFIX_LEN..]).unwrap()
    }

    #[test]
    fn a_reply_larger_than_a_frame_becomes_an_error() {
        let body = minions_proto::message::Done { message: "\0".repeat(MAX_FRAME_LEN / 2) };
        let frame = reply(&Ok(body));
        assert!(text(&frame).contains(r#""code":"internal""#), "{}", text(&frame));
    }

    #[test]
    fn an_error_about_a_very_long_value_is_truncated() {
        let frame = refuse(AgentError::new(ErrorCode::CommandNotFound, "\u{1}é".repeat(500_000)));
        assert!(frame.len() < 6 * MAX_MESSAGE_LEN);
        assert!(text(&frame).contains('…'));
    }
}
