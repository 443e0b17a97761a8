//! Service of an SSH client on standard input and output.

use super::client_stream::ClientStream;
use super::handler::ConnectionHandler;
use super::host_key::HostIdentity;
use super::input_budget::{InputBudget, WINDOW};
use crate::ssh_error::SshError;
use crate::target::Target;
use russh::server::{Config, run_stream};
use russh::{Error, MethodKind, MethodSet, SshId};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Deadline for ending the programs after the client has left. Without this process, minionsd ends them.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Serves the SSH client on standard input and output until it leaves.
pub(crate) async fn serve(target: Target, identity: HostIdentity) -> Result<(), SshError> {
    let budget = Arc::new(InputBudget::default());
    let stream = ClientStream::from_stdio(&budget).map_err(SshError::Streams)?;
    let programs = TaskTracker::new();
    let handler = ConnectionHandler::new(target, budget, programs.clone());
    let served = match run_stream(Arc::new(config(identity)), stream, handler).await {
        Ok(connection) => connection.await,
        Err(error) => Err(error),
    };
    programs.close();
    // Missing the deadline is not an error: the end of this process ends the streams.
    let _ = timeout(END_DEADLINE, programs.wait()).await;
    match served {
        Err(error) if !is_regular(&error) => Err(SshError::Protocol(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn config(identity: HostIdentity) -> Config {
    Config {
        server_id: SshId::Standard(
            concat!("SSH-2.0-minionsctl_", env!("CARGO_PKG_VERSION")).into(),
        ),
        methods: MethodSet::from(&[MethodKind::None, MethodKind::PublicKey][..]),
        keys: vec![identity.key],
        // The client is a process of the same user: failed logins need no delay, and a silent client is not an error.
        auth_rejection_time: Duration::ZERO,
        inactivity_timeout: None,
        window_size: WINDOW,
        ..Config::default()
    }
}

/// Reports whether the connection ended because the client left, which is not reported to the user.
fn is_regular(error: &Error) -> bool {
    match error {
        Error::Disconnect | Error::HUP | Error::SendError => true,
        Error::IO(error) => matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
        ),
        _ => false,
    }
}
