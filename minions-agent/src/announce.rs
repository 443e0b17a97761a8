//! Announcement of the agent to its host, so that the host need not wait for its next probe.
//!
//! The agent connects to the host once it listens, sends one message, and waits until the host closes the connection.
//! A host without a listener is not an error: it finds the agent by its probes.

use crate::agent::Agent;
use crate::host_stream::BoxedStream;
use minions_proto::AgentPort;
use minions_proto::announcement::ANNOUNCE_PORT;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

/// Time limit of one attempt. The kernel gives up an unanswered connection to the host after 2 s as well.
const DEADLINE: Duration = Duration::from_secs(2);

/// Pauses after failed attempts: the host may create its listener a moment after the VMM has started, and the driver of
/// the device may be loaded a moment after the agent has started.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4)];

/// Destination of the announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnounceTarget {
    /// The host of this guest.
    Host {
        /// VSOCK port on which the agent listens.
        port: AgentPort,
    },
    /// The Unix socket to which a VMM would connect on behalf of a guest: `<path>_1025`.
    Hybrid {
        /// Path of the agent's own socket.
        path: PathBuf,
        /// Port that CONNECT must request.
        port: AgentPort,
    },
}

impl AnnounceTarget {
    fn port(&self) -> AgentPort {
        match self {
            Self::Host { port } | Self::Hybrid { port, .. } => *port,
        }
    }
}

/// Announces the agent. Returns after success, or when all attempts have failed; failures are logged at debug level.
pub async fn announce(agent: &Agent, target: &AnnounceTarget) {
    let message = match agent.announcement(target.port()).encode() {
        Ok(message) => message,
        Err(error) => return tracing::debug!(%error, "cannot encode the announcement"),
    };
    let mut pauses = PAUSES.iter();
    loop {
        let sent = timeout(DEADLINE, attempt(target, &message)).await;
        match sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => return tracing::debug!("announced to the host"),
            Err(error) => tracing::debug!(%error, "cannot announce to the host"),
        }
        let Some(pause) = pauses.next() else { return };
        sleep(*pause).await;
    }
}

async fn attempt(target: &AnnounceTarget, message: &[u8]) -> io::Result<()> {
    match target {
        AnnounceTarget::Host { .. } => {
            let host = VsockAddr::new(VMADDR_CID_HOST, ANNOUNCE_PORT);
            send(Box::new(VsockStream::connect(host).await?), message).await
        }
        AnnounceTarget::Hybrid { path, .. } => {
            send(Box::new(UnixStream::connect(host_socket(path)).await?), message).await
        }
    }
}

/// Returns the path of the socket that the host provides for the port of announcements.
fn host_socket(own: &Path) -> PathBuf {
    let mut path = own.as_os_str().to_owned();
    path.push(format!("_{ANNOUNCE_PORT}"));
    path.into()
}

/// Sends the message and waits for the end of the connection: some VMMs lose data of a connection that is closed early.
async fn send(mut stream: BoxedStream<'_>, message: &[u8]) -> io::Result<()> {
    stream.write_all(message).await?;
    // Bytes from the host have no meaning.
    while stream.read(&mut [0; 64]).await? != 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentConfig;
    use minions_proto::announcement::Announcement;
    use tokio::net::UnixListener;

    fn hybrid(dir: &Path) -> AnnounceTarget {
        AnnounceTarget::Hybrid { path: dir.join("a.vsock"), port: AgentPort::DEFAULT }
    }

    #[tokio::test]
    async fn the_host_gets_one_message_with_the_ids_of_the_health_reply() {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("a.vsock_1025")).unwrap();
        let agent = Agent::new(AgentConfig::default()).unwrap();
        let host = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let len = stream.read_u32().await.unwrap();
            let mut payload = vec![0; len.try_into().unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            Announcement::decode(&payload).unwrap()
        };
        let target = hybrid(dir.path());
        let ((), received) = tokio::join!(announce(&agent, &target), host);
        assert_eq!(received, agent.announcement(AgentPort::DEFAULT));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_without_a_listener_and_with_one_that_never_closes() {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::new(AgentConfig::default()).unwrap();
        let target = hybrid(dir.path());
        announce(&agent, &target).await;
        let _silent = UnixListener::bind(dir.path().join("a.vsock_1025")).unwrap();
        let began = tokio::time::Instant::now();
        announce(&agent, &target).await;
        assert_eq!(began.elapsed(), 4 * DEADLINE + PAUSES.iter().sum::<Duration>());
    }
}
