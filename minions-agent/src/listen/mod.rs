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
use minions_proto::AgentPort;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The environment variable of the port.
pub const PORT_VARIABLE: &str = "MINIONS_AGENT_PORT";

/// After a failed accept. Descriptors are used up, most likely: others must give some back first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place to listen, as `--listen` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `vsock:PORT`, or `vsock` for the port of `--port`.
    Vsock(Option<AgentPort>),
    /// `hybrid:PATH`.
    Hybrid(PathBuf),
    /// `activated`: what the service manager passes.
    Activated,
}

/// A place to listen, with its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A VSOCK port.
    Vsock(AgentPort),
    /// A Unix socket that speaks CONNECT/OK itself.
    Hybrid {
        /// Its file.
        path: PathBuf,
        /// The port that CONNECT must ask for.
        port: AgentPort,
    },
    /// What the service manager passes.
    Activated {
        /// The port that a VSOCK socket must have, if one was asked for, and that CONNECT must ask for on a Unix
        /// socket.
        port: Option<AgentPort>,
    },
}

impl Place {
    /// The place if none was asked for: what the service manager passes, if it does, or VSOCK.
    #[must_use]
    pub fn by_environment() -> Self {
        if activated::is_offered() { Self::Activated } else { Self::Vsock(None) }
    }

    /// The place with its port. A port of `--port` must not contradict the place's own; one of the environment
    /// is a default.
    ///
    /// # Errors
    ///
    /// [`TwoPorts`].
    pub fn on_port(
        self,
        option: Option<AgentPort>,
        environment: Option<AgentPort>,
    ) -> Result<Listen, TwoPorts> {
        let port = option.or(environment);
        match self {
            Self::Vsock(Some(own)) => match option.filter(|other| *other != own) {
                Some(other) => Err(TwoPorts { own, other }),
                None => Ok(Listen::Vsock(own)),
            },
            Self::Vsock(None) => Ok(Listen::Vsock(port.unwrap_or_default())),
            Self::Hybrid(path) => Ok(Listen::Hybrid { path, port: port.unwrap_or_default() }),
            Self::Activated => Ok(Listen::Activated { port }),
        }
    }
}

/// Two options ask for different ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("--listen asks for VSOCK port {own} and --port for {other}: leave one of them out")]
pub struct TwoPorts {
    own: AgentPort,
    other: AgentPort,
}

impl Listen {
    /// Whether the agent is a guest's own, and the machine its to arrange: only VSOCK is sure to be.
    #[must_use]
    pub fn is_of_guest(&self) -> bool {
        match self {
            Self::Vsock(_) => true,
            Self::Activated { .. } => activated::is_vsock(),
            Self::Hybrid { .. } => false,
        }
    }

    /// Where the control groups of programs are made. The same for the next agent that listens there.
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

/// Not a place to listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no place to listen: must be vsock:PORT, hybrid:PATH or activated; a port is 1 to 4294967294"
)]
pub struct InvalidListen(String);

impl FromStr for Place {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen(text.to_owned());
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

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// AF_VSOCK: the guest has no vsock device or driver.
    #[error("can't listen on vsock port {port} (is there a vsock device, and its driver loaded?)")]
    Vsock {
        /// Which port.
        port: AgentPort,
        /// Why.
        source: io::Error,
    },
    /// AF_VSOCK: another process has the port.
    #[error(
        "VSOCK port {0} is in use by another process: end the other agent or service (`ss --vsock -lp` shows it), \
         or choose another port (--port)"
    )]
    PortInUse(AgentPort),
    /// The port that the service manager passes is not the one that was asked for.
    #[error(
        "the service manager passes VSOCK port {passed}, and --port or MINIONS_AGENT_PORT asks for {asked}: set \
         ListenStream=vsock::{asked} in the socket unit"
    )]
    OtherPort {
        /// The port of the socket.
        passed: u32,
        /// The port that was asked for.
        asked: AgentPort,
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
            Listen::Hybrid { path, port } => {
                Kind::Hybrid(hybrid::Listener::bind(path, *port).await?)
            }
            Listen::Activated { port } => match activated::take(*port)? {
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

    fn port(number: i64) -> AgentPort {
        number.try_into().unwrap()
    }

    #[test]
    fn a_place_is_a_kind_and_where() {
        assert_eq!("vsock:1024".parse(), Ok(Place::Vsock(Some(AgentPort::DEFAULT))));
        assert_eq!("vsock".parse(), Ok(Place::Vsock(None)));
        assert_eq!("hybrid:/a:b".parse(), Ok(Place::Hybrid("/a:b".into())));
        assert_eq!("activated".parse(), Ok(Place::Activated));
        let wrong = [
            "",
            "vsock:",
            "vsock:-1",
            "vsock:0",
            "vsock:4294967295",
            "vsock:4294967296",
            "hybrid:",
            "tcp:1",
        ];
        for text in wrong {
            assert!(text.parse::<Place>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_option_is_before_the_environment_and_contradicts_no_place() {
        let (one, two, own) = (port(1), port(2), port(3));
        let unnamed = |option, environment| Place::Vsock(None).on_port(option, environment);
        assert_eq!(unnamed(None, None), Ok(Listen::Vsock(AgentPort::DEFAULT)));
        assert_eq!(unnamed(None, Some(two)), Ok(Listen::Vsock(two)));
        assert_eq!(unnamed(Some(one), Some(two)), Ok(Listen::Vsock(one)));
        let named = |option, environment| Place::Vsock(Some(own)).on_port(option, environment);
        assert_eq!(named(None, Some(two)), Ok(Listen::Vsock(own)));
        assert_eq!(named(Some(own), Some(two)), Ok(Listen::Vsock(own)));
        assert_eq!(named(Some(one), None), Err(TwoPorts { own, other: one }));
        assert_eq!(Place::Activated.on_port(None, None), Ok(Listen::Activated { port: None }));
        let hybrid = Place::Hybrid("/s".into()).on_port(None, Some(two));
        assert_eq!(hybrid, Ok(Listen::Hybrid { path: "/s".into(), port: two }));
    }
}
