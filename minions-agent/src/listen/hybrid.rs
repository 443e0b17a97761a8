//! A Unix socket that speaks the VMM's side of the handshake.

use super::{ListenError, pause_after};
use crate::Agent;
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

/// For a client to send its CONNECT line.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Whoever connects can run programs as us.
const SOCKET_MODE: u32 = 0o600;

/// The socket, and the file that it takes with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    port: AgentPort,
    _file: Option<SocketFile>,
}

impl Listener {
    pub(super) async fn bind(path: &Path, port: AgentPort) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Hybrid { path: path.to_owned(), source };
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ListenError::InUse(path.to_owned())),
            // Left behind by one that was killed. A file that is no socket refuses just the same.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let socket = UnixListener::bind(path).map_err(failed)?;
        let listener = Self { socket, port, _file: Some(SocketFile(path.to_owned())) };
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        tracing::info!(path = %path.display(), %port, "listening on a hybrid socket");
        Ok(listener)
    }

    /// One that listens already. Its file is somebody else's.
    pub(super) fn of(fd: OwnedFd, port: AgentPort) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixListener::from(fd);
        socket.set_nonblocking(true)?;
        tracing::info!("listening on the service manager's hybrid socket");
        Ok(Self { socket: UnixListener::from_std(socket)?, port, _file: None })
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
                        sessions.spawn(serve(agent.clone(), stream, self.port));
                    }
                    Err(error) => pause_after(error).await,
                },
            }
        }
    }
}

/// As a VMM would: another port is refused by closing, without a line.
async fn serve(agent: Agent, mut stream: UnixStream, open: AgentPort) {
    match accept(&mut stream, CONNECT_DEADLINE).await {
        Ok(port) if port == open.get() => {
            if grant(&mut stream, port).await.is_ok() {
                agent.serve(stream).await;
            }
        }
        Ok(port) => tracing::debug!(port, "nobody listens on this port"),
        Err(error) => tracing::debug!(%error, "no handshake"),
    }
}

/// A socket's file, removed when dropped.
#[derive(Debug)]
struct SocketFile(PathBuf);

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else has removed it already.
        let _ = fs::remove_file(&self.0);
    }
}
