//! Listeners for connections of the host.
//!
//! * `vsock`: AF_VSOCK, the transport of an agent in a VM.
//! * `hybrid`: a Unix socket on which the agent also performs the VMM's part, CONNECT and OK: for trials
//!   without a VM.
//! * `activated`: a socket of either kind that the service manager holds and passes to the agent.

mod activated;
mod hybrid;
mod vsock;

use crate::agent::Agent;
use crate::announce::AnnounceTarget;
use crate::exec::ProgramGroups;
use activated::PassedListener;
use minions_proto::AgentPort;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Environment variable of the port.
pub const PORT_VARIABLE: &str = "MINIONS_AGENT_PORT";

/// Pause after a failed accept. The likely cause is a lack of descriptors, so others must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Value of `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenOption {
    /// `vsock:PORT`, or `vsock` for the port of `--port`.
    Vsock(Option<AgentPort>),
    /// `hybrid:PATH`.
    Hybrid(PathBuf),
    /// `activated`: the socket passed by the service manager.
    Activated,
}

impl ListenOption {
    /// Returns the default: the socket passed by the service manager if there is one, else VSOCK.
    #[must_use]
    pub fn by_environment() -> Self {
        if activated::is_offered() { Self::Activated } else { Self::Vsock(None) }
    }

    /// Adds the port: that of `vsock:PORT`, else `option` (`--port`), else that of the `environment`, else the
    /// default.
    ///
    /// # Errors
    ///
    /// [`PortConflict`] if `vsock:PORT` and `option` contradict each other.
    pub fn on_port(
        self,
        option: Option<AgentPort>,
        environment: Option<AgentPort>,
    ) -> Result<ListenAddress, PortConflict> {
        let port = option.or(environment);
        match self {
            Self::Vsock(Some(own)) => match option.filter(|other| *other != own) {
                Some(other) => Err(PortConflict { own, other }),
                None => Ok(ListenAddress::Vsock(own)),
            },
            Self::Vsock(None) => Ok(ListenAddress::Vsock(port.unwrap_or_default())),
            Self::Hybrid(path) => {
                Ok(ListenAddress::Hybrid { path, port: port.unwrap_or_default() })
            }
            Self::Activated => Ok(ListenAddress::Activated { port }),
        }
    }
}

/// Different ports in `--listen` and `--port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--listen gives VSOCK port {own}, but --port gives {other}: use only one of them")]
pub struct PortConflict {
    own: AgentPort,
    other: AgentPort,
}

/// Listen address with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// VSOCK port.
    Vsock(AgentPort),
    /// Unix socket on which the agent answers CONNECT itself.
    Hybrid {
        /// Path of the socket.
        path: PathBuf,
        /// Port that CONNECT must request.
        port: AgentPort,
    },
    /// Socket passed by the service manager.
    Activated {
        /// Requested port: a VSOCK socket must have it, and on a Unix socket, CONNECT must request it. `None`
        /// accepts any VSOCK port, and requires the default port in CONNECT.
        port: Option<AgentPort>,
    },
}

impl ListenAddress {
    /// Reports whether the agent belongs to a guest and may change machine-wide settings. Only VSOCK proves that.
    #[must_use]
    pub fn is_of_guest(&self) -> bool {
        match self {
            Self::Vsock(_) => true,
            Self::Activated { .. } => activated::is_vsock(),
            Self::Hybrid { .. } => false,
        }
    }

    /// Returns the location of the control groups of programs. It is the same for every agent that listens at
    /// this address, so that a restarted agent finds the programs of the previous one.
    #[must_use]
    pub fn program_groups(&self) -> ProgramGroups {
        match self {
            Self::Vsock(_) => ProgramGroups::OfGuest,
            Self::Activated { .. } if activated::is_vsock() => ProgramGroups::OfGuest,
            Self::Activated { .. } => ProgramGroups::Below("minions-activated".to_owned()),
            Self::Hybrid { path, .. } => {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                ProgramGroups::Below(format!("minions-{:016x}", hasher.finish()))
            }
        }
    }
}

/// Invalid listen address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a listen address: must be vsock:PORT, hybrid:PATH or activated; a port is 1 to 4294967294"
)]
pub struct InvalidListenAddress(String);

impl FromStr for ListenOption {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, InvalidListenAddress> {
        let invalid = || InvalidListenAddress(text.to_owned());
        match text {
            "activated" => return Ok(Self::Activated),
            "vsock" => return Ok(Self::Vsock(None)),
            _ => {}
        }
        match text.split_once(':') {
            Some(("vsock", port)) => {
                port.parse().map(|port| Self::Vsock(Some(port))).map_err(|_| invalid())
            }
            Some(("hybrid", path)) if !path.is_empty() => Ok(Self::Hybrid(path.into())),
            _ => Err(invalid()),
        }
    }
}

/// Failure to listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// AF_VSOCK: the guest has no vsock device or driver.
    #[error(
        "cannot listen on vsock port {port} (is there a vsock device, and is its driver loaded?)"
    )]
    Vsock {
        /// VSOCK port.
        port: AgentPort,
        /// Error of the kernel.
        source: io::Error,
    },
    /// AF_VSOCK: another process listens on the port.
    #[error(
        "VSOCK port {0} is in use by another process: stop the other agent or service (`ss --vsock -lp` lists it), \
         or choose another port (--port)"
    )]
    PortInUse(AgentPort),
    /// The port of the passed socket is not the requested one.
    #[error(
        "the service manager passes VSOCK port {passed}, but --port or MINIONS_AGENT_PORT requests {requested}: set \
         ListenStream=vsock::{requested} in the socket unit"
    )]
    OtherPort {
        /// Port of the passed socket.
        passed: u32,
        /// Requested port.
        requested: AgentPort,
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
            ListenAddress::Hybrid { path, port } => {
                ListenerKind::Hybrid(hybrid::HybridListener::bind(path, *port).await?)
            }
            ListenAddress::Activated { port } => match activated::take(*port)? {
                PassedListener::Vsock(listener) => ListenerKind::Vsock(listener),
                PassedListener::Hybrid(listener) => ListenerKind::Hybrid(listener),
            },
        }))
    }

    /// Returns the destination of the agent's announcement; `None` for a Unix socket of the service manager.
    #[must_use]
    pub fn announce_target(&self) -> Option<AnnounceTarget> {
        match &self.0 {
            ListenerKind::Vsock(listener) => listener.announce_target(),
            ListenerKind::Hybrid(listener) => listener.announce_target(),
        }
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

    fn port(number: i64) -> AgentPort {
        number.try_into().unwrap()
    }

    #[test]
    fn listen_options_are_parsed_strictly() {
        assert_eq!("vsock:1024".parse(), Ok(ListenOption::Vsock(Some(AgentPort::DEFAULT))));
        assert_eq!("vsock".parse(), Ok(ListenOption::Vsock(None)));
        assert_eq!("hybrid:/a:b".parse(), Ok(ListenOption::Hybrid("/a:b".into())));
        assert_eq!("activated".parse(), Ok(ListenOption::Activated));
        let invalid = [
            "",
            "vsock:",
            "vsock:-1",
            "vsock:0",
            "vsock:4294967295",
            "vsock:4294967296",
            "hybrid:",
            "tcp:1",
        ];
        for text in invalid {
            assert!(text.parse::<ListenOption>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_port_option_overrides_the_environment_and_must_not_contradict_listen() {
        let one = port(1);
        let two = port(2);
        let own = port(3);
        let without = |option, environment| ListenOption::Vsock(None).on_port(option, environment);
        assert_eq!(without(None, None), Ok(ListenAddress::Vsock(AgentPort::DEFAULT)));
        assert_eq!(without(None, Some(two)), Ok(ListenAddress::Vsock(two)));
        assert_eq!(without(Some(one), Some(two)), Ok(ListenAddress::Vsock(one)));
        let with =
            |option, environment| ListenOption::Vsock(Some(own)).on_port(option, environment);
        assert_eq!(with(None, Some(two)), Ok(ListenAddress::Vsock(own)));
        assert_eq!(with(Some(own), Some(two)), Ok(ListenAddress::Vsock(own)));
        assert_eq!(with(Some(one), None), Err(PortConflict { own, other: one }));
        let activated = ListenOption::Activated.on_port(None, None);
        assert_eq!(activated, Ok(ListenAddress::Activated { port: None }));
        let hybrid = ListenOption::Hybrid("/s".into()).on_port(None, Some(two));
        assert_eq!(hybrid, Ok(ListenAddress::Hybrid { path: "/s".into(), port: two }));
    }
}
