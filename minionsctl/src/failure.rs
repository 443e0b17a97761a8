//! What goes wrong here, and what to do next.

use crate::agent::AgentAddress;
use crate::exit::ExitStatus;
use crate::link::LinkError;
use minions_api::vm::Failure as Layer;
use minions_api::{ErrorCode, Problem};
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::error::{AgentError, ErrorCode as AgentCode};
use minions_proto::exec_client::StreamError;
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::DialError;
use minions_proto::port::InvalidPort;
use minions_proto::stranger::Stranger;
use std::borrow::Cow;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For a path that the kernel does not take (`minions_proto::hybrid::MAX_PATH_LEN`).
const PATH_TOO_LONG: &str = "the path of a Unix socket has at most 107 bytes: use a shorter one, relative to its \
                             directory or through a symbolic link";

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// minionsd answered with a problem.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// minionsd didn't answer.
    #[error("minionsd at {host} can't be reached")]
    Unreachable {
        /// Where it was looked for.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// minionsd's answer broke off or took too long.
    #[error("minionsd at {host} did not answer")]
    NoAnswer {
        /// Where.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Something answers there, but not as minionsd does.
    #[error("what answers at {host} is not minionsd: {what}")]
    NotMinionsd {
        /// Where.
        host: String,
        /// What it said instead.
        what: String,
    },
    /// The limit of the command passed.
    #[error("no result within {} (--timeout)", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// minionsd's answer stopped in the middle.
    #[error("minionsd at {host} has gone silent")]
    Silent {
        /// Where.
        host: String,
    },
    /// minionsd's answer ended too early.
    #[error("minionsd at {host} broke off")]
    BrokeOff {
        /// Where.
        host: String,
    },
    /// The stream to a program.
    #[error("lost the program")]
    Link(#[from] LinkError),
    /// The same, also after all attempts to find it again.
    #[error("lost the program, and could not get back to it within {}", humantime::format_duration(*.patience))]
    NotReattached {
        /// How long was tried.
        patience: Duration,
        /// How the last attempt failed.
        source: Box<Failure>,
    },
    /// The same, for a reason that stays.
    #[error("lost the program, and there is no way back to it")]
    NoWayBack(#[source] Box<Failure>),
    /// The agent's counts contradict ours.
    #[error("lost the program: what comes can't be it")]
    Stream(#[from] StreamError),
    /// Somebody else attached.
    #[error("taken over by another client")]
    TakenOver(#[source] AgentError),
    /// Standard input.
    #[error("the input can't be read")]
    Input(#[source] io::Error),
    /// The terminal that is our input.
    #[error("the terminal can't be set up")]
    Terminal(#[source] io::Error),
    /// `--host` is no place.
    #[error("--host is {0:?}: must be http://HOST:PORT, https://HOST:PORT or unix://PATH")]
    Host(String),
    /// A file of ours.
    #[error("{} can't be read", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of certificates, or of a certificate and its key.
    #[error("{} holds no PEM {what}", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A configuration file of ours.
    #[error("{} is malformed", .path.display())]
    Config {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A port of a variable or a file that is none.
    #[error("`{setting}` is {value:?}")]
    Port {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The accepted values.
        source: InvalidPort,
    },
    /// A file that holds no request.
    #[error("{} is not a request of this command", .path.display())]
    Request {
        /// The file; `-` for standard input.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The agent's socket.
    #[error("no connection to the agent at {}", .address.socket.display())]
    Dial {
        /// Its socket and port.
        address: AgentAddress,
        /// Why.
        source: DialError,
    },
    /// A service that is not an agent has the agent's port.
    #[error("something else answers on port {port} in the guest (it looks like {stranger})")]
    NotAnAgent {
        /// The port.
        port: AgentPort,
        /// The service.
        stranger: Stranger,
    },
    /// The agent's answer.
    #[error("the agent did not do it")]
    Agent(#[from] ExchangeError),
    /// The combination of arguments.
    #[error("{0}")]
    Usage(&'static str),
    /// A value that can't be.
    #[error(transparent)]
    Invalid(#[from] minions_proto::Invalid),
    /// `wait` gave up.
    #[error("not ready in time: {0}")]
    NotReady(String),
    /// `wait` gave up on a program.
    #[error("{0} still runs")]
    StillRuns(String),
    /// Standard output is gone.
    #[error("the output can't be written")]
    Output(#[source] io::Error),
    /// The async runtime didn't start.
    #[error("the async runtime can't start")]
    Runtime(#[source] io::Error),
}

impl Failure {
    /// No VM is named.
    pub(crate) const WHICH_VM: Self =
        Self::Usage("which VM? Give its name (`minionsctl ls`), or --socket PATH");

    /// What the shell gets.
    pub(crate) fn exit_status(&self, runs_a_program: bool) -> ExitStatus {
        if !runs_a_program {
            return ExitStatus::Failure;
        }
        match self {
            Self::Problem(problem) => ExitStatus::of_exec(problem.code),
            Self::Agent(ExchangeError::Agent(error)) => match error.code {
                Some(AgentCode::CommandNotFound) => ExitStatus::NotFound,
                Some(AgentCode::CommandNotExecutable) => ExitStatus::NotExecutable,
                _ => ExitStatus::Ours,
            },
            _ => ExitStatus::Ours,
        }
    }

    /// Whether the same may succeed in a moment.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // One that starts has yet to find the VMs.
            Self::Problem(problem) => problem.retryable || problem.code == ErrorCode::VmNotFound,
            Self::Link(error) => error.is_transient(),
            Self::Agent(error) => {
                matches!(error, ExchangeError::Lost { .. } | ExchangeError::TimedOut)
            }
            Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::Silent { .. }
            | Self::BrokeOff { .. }
            | Self::Dial { .. } => true,
            _ => false,
        }
    }

    /// Whether the program may run in spite of this.
    pub(crate) fn may_have_started(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.retryable && problem.may_have_executed,
            Self::Link(error) => error.is_transient(),
            Self::Agent(ExchangeError::Lost { sent, .. }) => *sent,
            Self::Agent(ExchangeError::TimedOut) => true,
            _ => false,
        }
    }

    /// What to do next, where that isn't plain from the error.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::Problem(problem) => problem_hint(problem)?,
            Self::Unreachable { source, .. } => unreachable_hint(source),
            Self::Dial { address, source } => return dial_hint(address, source),
            Self::NotAnAgent { .. } => {
                "name the port of minions-agent with --port; `minions-agent --port` sets it in the guest"
            }
            Self::NotReattached { .. } => {
                "if it still runs, `minionsctl ps VM` shows it, and `attach` comes back to it"
            }
            Self::NotReady(_) => "`minionsctl get VM` says which layer is missing",
            _ => return None,
        };
        Some(hint.into())
    }
}

fn problem_hint(problem: &Problem) -> Option<&'static str> {
    match problem.code {
        ErrorCode::VmNotFound => Some("`minionsctl ls` lists the VMs"),
        ErrorCode::AgentUnreachable => match problem.failure {
            Some(Layer::NoAgent) => {
                Some("is minions-agent installed and running in the guest? If it is booting, wait")
            }
            Some(Layer::NoListener | Layer::NoSocket) => Some("start the VM"),
            _ => Some("`minionsctl get VM` says more"),
        },
        ErrorCode::AgentTooOld => Some("install a newer minions-agent in the guest"),
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => {
            Some("use the Unix socket as root or as a member of the group minions, or --token-file")
        }
        _ if problem.may_have_executed => Some("the guest may have done it all the same"),
        _ => None,
    }
}

fn unreachable_hint(error: &reqwest::Error) -> &'static str {
    let mut cause = error.source();
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        match kind {
            Some(io::ErrorKind::InvalidInput) => return PATH_TOO_LONG,
            Some(io::ErrorKind::PermissionDenied) => {
                return "be root or a member of the group minions to use this socket; over TCP \
                        (--host http://127.0.0.1:7070) every user reads";
            }
            _ => cause = error.source(),
        }
    }
    "is minionsd running? Name another place with --host or MINIONS_HOST"
}

fn dial_hint(address: &AgentAddress, error: &DialError) -> Option<Cow<'static, str>> {
    let hint = match error {
        DialError::NoSocket(_) => "is the VM started, and with this vsock path?",
        DialError::NoListener(_) if !is_socket(&address.socket) => "this file is not a socket",
        DialError::NoListener(_) => "the VMM that made this socket is gone; start the VM",
        DialError::Connect(error) => connect_hint(error.kind())?,
        DialError::NotAccepted => "the VMM hangs",
        DialError::Handshake(HandshakeError::Refused) => {
            let port = address.port;
            return Some(Cow::Owned(format!(
                "is minions-agent installed and running in the guest, on port {port}? If it is booting, wait"
            )));
        }
        DialError::Handshake(HandshakeError::TimedOut(_)) => {
            "the guest boots, is paused, or hangs; if it is booting, wait"
        }
        DialError::Handshake(HandshakeError::Truncated | HandshakeError::Line(_)) => {
            "is this a VM's hybrid-vsock socket?"
        }
        DialError::Handshake(HandshakeError::SplitWrite | HandshakeError::Io(_)) => return None,
    };
    Some(hint.into())
}

/// What to do about a socket that cannot be connected.
fn connect_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => {
            Some("only root and the user of the VMM may connect to this socket")
        }
        // Of more than 107 bytes, or with a NUL.
        io::ErrorKind::InvalidInput => Some(PATH_TOO_LONG),
        _ => None,
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refused_permission_is_about_permissions() {
        let hint = |kind| connect_hint(kind).unwrap_or_default();
        assert!(hint(io::ErrorKind::PermissionDenied).contains("only root"));
        assert!(hint(io::ErrorKind::InvalidInput).contains("107 bytes"));
        for kind in [io::ErrorKind::NotADirectory, io::ErrorKind::Other, io::ErrorKind::OutOfMemory]
        {
            assert_eq!(hint(kind), "", "{kind}");
        }
    }
}
