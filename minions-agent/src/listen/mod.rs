//! Where connections come from.
//!
//! * `vsock`: the host, over AF_VSOCK: what an agent in a VM listens on.
//! * `hybrid`: a Unix socket on which the agent plays the VMM too and speaks CONNECT/OK itself:
//!   for trying things out without a VM.
//! * `activated`: a socket of either kind that the service manager holds and passes on.

mod activated;
mod hybrid;
mod vsock;

use crate::{Agent, ProgramGroups};
use activated::Activated;
use minions_proto::version::AGENT_PORT;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// After a failed accept. Descriptors are used up, most likely: others must give some back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place to listen, as `--listen` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `vsock:PORT`.
    Vsock(u32),
    /// `hybrid:PATH`.
    Hybrid(PathBuf),
    /// `activated`: what the service manager passes.
    Activated,
}

impl Default for Listen {
    fn default() -> Self {
        Self::Vsock(AGENT_PORT)
    }
}

impl Listen {
    /// Where to listen if nobody said: on what the service manager passes, if it does, or on the
    /// agent's port.
    #[must_use]
    pub fn by_environment() -> Self {
        if activated::is_offered() { Self::Activated } else { Self::default() }
    }

    /// Whether the agent is a guest's own, and the machine its to arrange: only VSOCK is sure to be.
    #[must_use]
    pub fn is_of_guest(&self) -> bool {
        match self {
            Self::Vsock(_) => true,
            Self::Activated => activated::is_vsock(),
            Self::Hybrid(_) => false,
        }
    }

    /// Where the control groups of programs are made. The same for the next agent that listens there.
    #[must_use]
    pub fn program_groups(&self) -> ProgramGroups {
        match self {
            Self::Vsock(_) => ProgramGroups::OfGuest,
            Self::Activated if activated::is_vsock() => ProgramGroups::OfGuest,
            Self::Activated => ProgramGroups::Below("minions-activated".to_owned()),
            Self::Hybrid(path) => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                ProgramGroups::Below(format!("minions-{:016x}", hasher.finish()))
            }
        }
    }
}

/// Not a place to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place to listen: must be vsock:PORT, hybrid:PATH or activated")]
pub struct InvalidListen(String);

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen(text.to_owned());
        if text == "activated" {
            return Ok(Self::Activated);
        }
        match text.split_once(':') {
            Some(("vsock", port)) => port.parse().map(Self::Vsock).map_err(|_| invalid()),
            Some(("hybrid", path)) if !path.is_empty() => Ok(Self::Hybrid(path.into())),
            _ => Err(invalid()),
        }
    }
}

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// AF_VSOCK: the port is taken, or the guest has no vsock device or driver.
    #[error("can't listen on vsock port {port} (is there a vsock device, and its driver loaded?)")]
    Vsock {
        /// Which port.
        port: u32,
        /// Why.
        source: io::Error,
    },
    /// The Unix socket.
    #[error("can't listen on {}", .path.display())]
    Hybrid {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// What the service manager passes.
    #[error("no usable socket from the service manager")]
    Activation(#[source] io::Error),
}

/// A place where connections can come.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Vsock(vsock::Listener),
    Hybrid(hybrid::Listener),
}

impl Listener {
    /// From here on hosts can connect, and wait.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub async fn bind(listen: &Listen) -> Result<Self, ListenError> {
        Ok(Self(match listen {
            Listen::Vsock(port) => Kind::Vsock(vsock::Listener::bind(*port)?),
            Listen::Hybrid(path) => Kind::Hybrid(hybrid::Listener::bind(path).await?),
            Listen::Activated => match activated::take()? {
                Activated::Vsock(listener) => Kind::Vsock(listener),
                Activated::Hybrid(listener) => Kind::Hybrid(listener),
            },
        }))
    }

    /// Serves every connection that comes, until `shutdown` is ready; then connections are closed,
    /// and programs that they run are killed.
    pub async fn serve(self, agent: &Agent, shutdown: impl Future<Output = ()>) {
        match self.0 {
            Kind::Vsock(listener) => listener.serve(agent, shutdown).await,
            Kind::Hybrid(listener) => listener.serve(agent, shutdown).await,
        }
    }
}

/// A connection that was not taken: said, and survived.
async fn pause_after(error: io::Error) {
    tracing::warn!(%error, "a connection was not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_kind_and_where() {
        assert_eq!("vsock:1024".parse(), Ok(Listen::default()));
        assert_eq!("hybrid:/a:b".parse(), Ok(Listen::Hybrid("/a:b".into())));
        assert_eq!("activated".parse(), Ok(Listen::Activated));
        for text in ["", "vsock", "vsock:", "vsock:-1", "vsock:4294967296", "hybrid:", "tcp:1"] {
            assert!(text.parse::<Listen>().is_err(), "{text:?}");
        }
    }
}
