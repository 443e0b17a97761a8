//! Listeners for connections of the host.
//!
//! * `vsock`: AF_VSOCK, the transport of an agent in a VM.
//! * `hybrid`: a Unix socket on which the agent also performs the VMM's part, CONNECT and OK: for trials
//!   without a VM.
//! * `activated`: a socket of either kind that the service manager holds and passes to the agent.

mod activated;
mod hybrid;
mod vsock;

use crate::{Agent, ProgramGroups};
use activated::PassedListener;
use minions_proto::version::AGENT_PORT;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Pause after a failed accept. The likely cause is a lack of descriptors, so others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listen address, as given with `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// `vsock:PORT`.
    Vsock(u32),
    /// `hybrid:PATH`.
    Hybrid(PathBuf),
    /// `activated`: the socket passed by the service manager.
    Activated,
}

impl Default for ListenAddress {
    fn default() -> Self {
        Self::Vsock(AGENT_PORT)
    }
}

impl ListenAddress {
    /// Returns the default listen address: the socket passed by the service manager if there is one, else the
    /// agent's VSOCK port.
    #[must_use]
    pub fn by_environment() -> Self {
        if activated::is_offered() { Self::Activated } else { Self::default() }
    }

    /// Reports whether the agent belongs to a guest and may change machine-wide settings. Only VSOCK proves that.
    #[must_use]
    pub fn is_of_guest(&self) -> bool {
        match self {
            Self::Vsock(_) => true,
            Self::Activated => activated::is_vsock(),
            Self::Hybrid(_) => false,
        }
    }

    /// Returns the location of the control groups of programs. It is the same for every agent that listens at
    /// this address, so that a restarted agent finds the programs of the previous one.
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

/// Invalid listen address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a listen address: must be vsock:PORT, hybrid:PATH or activated")]
pub struct InvalidListenAddress(String);

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        let invalid = || InvalidListenAddress(text.to_owned());
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

/// Failure to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// AF_VSOCK: the port is in use, or the guest has no vsock device or driver.
    #[error(
        "cannot listen on vsock port {port} (is there a vsock device, and is its driver loaded?)"
    )]
    Vsock {
        /// VSOCK port.
        port: u32,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The Unix socket cannot be created.
    #[error("cannot listen on {}", .path.display())]
    Hybrid {
        /// Path of the socket.
        path: PathBuf,
        /// Error of the kernel.
        source: io::Error,
    },
    /// Another process listens on this path.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The service manager passes no usable socket.
    #[error("no usable socket from the service manager")]
    Activation(#[source] io::Error),
}

/// A listening socket.
#[derive(Debug)]
pub struct Listener(ListenerKind);

#[derive(Debug)]
enum ListenerKind {
    Vsock(vsock::HostListener),
    Hybrid(hybrid::HybridListener),
}

impl Listener {
    /// Starts to listen. Connections are accepted once [`serve`](Self::serve) runs; until then they wait.
    ///
    /// # Errors
    ///
    /// [`ListenError`].
    pub async fn bind(listen: &ListenAddress) -> Result<Self, ListenError> {
        Ok(Self(match listen {
            ListenAddress::Vsock(port) => ListenerKind::Vsock(vsock::HostListener::bind(*port)?),
            ListenAddress::Hybrid(path) => {
                ListenerKind::Hybrid(hybrid::HybridListener::bind(path).await?)
            }
            ListenAddress::Activated => match activated::take()? {
                PassedListener::Vsock(listener) => ListenerKind::Vsock(listener),
                PassedListener::Hybrid(listener) => ListenerKind::Hybrid(listener),
            },
        }))
    }

    /// Serves all connections until `shutdown` completes. Then connections are closed, and their programs are
    /// killed.
    pub async fn serve(self, agent: &Agent, shutdown: impl Future<Output = ()>) {
        match self.0 {
            ListenerKind::Vsock(listener) => listener.serve(agent, shutdown).await,
            ListenerKind::Hybrid(listener) => listener.serve(agent, shutdown).await,
        }
    }
}

/// Logs a failed accept and pauses before the next one.
async fn pause_after(error: io::Error) {
    tracing::warn!(%error, "failed to accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_parsed_strictly() {
        assert_eq!("vsock:1024".parse(), Ok(ListenAddress::default()));
        assert_eq!("hybrid:/a:b".parse(), Ok(ListenAddress::Hybrid("/a:b".into())));
        assert_eq!("activated".parse(), Ok(ListenAddress::Activated));
        for text in ["", "vsock", "vsock:", "vsock:-1", "vsock:4294967296", "hybrid:", "tcp:1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text:?}");
        }
    }
}
