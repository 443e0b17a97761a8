//! A Unix socket on which the agent performs the VMM's side of the handshake.

use super::{ListenError, pause_after};
use crate::agent::Agent;
use crate::announce::AnnounceTarget;
use crate::task::BoxedTask;
use minions_proto::AgentPort;
use minions_proto::handshake::{accept, grant};
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Deadline for a client's CONNECT line.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Mode of the socket file. Only the agent's user may connect, because clients can run programs as this user.
const SOCKET_MODE: u32 = 0o600;

/// Listening socket, and its file if the agent created it.
#[derive(Debug)]
pub(super) struct HybridListener {
    socket: UnixListener,
    port: AgentPort,
    file: Option<SocketFile>,
}

impl HybridListener {
    pub(super) async fn bind(path: &Path, port: AgentPort) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Hybrid { path: path.to_owned(), source };
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ListenError::InUse(path.to_owned())),
            // Left over from an agent that was killed. A file that is not a socket also refuses connections.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let socket = UnixListener::bind(path).map_err(failed)?;
        let listener = Self { socket, port, file: Some(SocketFile(path.to_owned())) };
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        tracing::info!(path = %path.display(), %port, "listening on a hybrid socket");
        Ok(listener)
    }

    /// Uses a socket that already listens. Its file belongs to the service manager and is not removed.
    pub(super) fn of(fd: OwnedFd, port: AgentPort) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixListener::from(fd);
        socket.set_nonblocking(true)?;
        tracing::info!("listening on the service manager's hybrid socket");
        Ok(Self { socket: UnixListener::from_std(socket)?, port, file: None })
    }

    /// Returns the host's socket next to the agent's own one; `None` if the service manager has created that.
    pub(super) fn announce_target(&self) -> Option<AnnounceTarget> {
        let path = self.file.as_ref()?.0.clone();
        Some(AnnounceTarget::Hybrid { path, port: self.port })
    }

    pub(super) async fn serve(self, agent: &Agent, shutdown: impl Future<Output = ()>) {
        let mut sessions = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                Some(_ended) = sessions.join_next() => {}
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let session: BoxedTask = Box::pin(serve(agent.clone(), stream, self.port));
                        sessions.spawn(session);
                    }
                    Err(error) => pause_after(error).await,
                },
            }
        }
    }
}

/// Serves a connection like a VMM would: a request for a port other than `open` is refused by closing the
/// connection.
async fn serve(agent: Agent, mut stream: UnixStream, open: AgentPort) {
    match accept(&mut stream, CONNECT_DEADLINE).await {
        Ok(port) if port == open.get() => {
            if grant(&mut stream, port).await.is_ok() {
                agent.serve(stream).await;
            }
        }
        Ok(port) => tracing::debug!(port, "refused a connection to a port without a listener"),
        Err(error) => tracing::debug!(%error, "handshake failed"),
    }
}

/// Socket file that is removed on drop.
#[derive(Debug)]
struct SocketFile(PathBuf);

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Fails if another process has removed the file already.
        let _ = fs::remove_file(&self.0);
    }
}
