//! What goes wrong here, and what to do next.

use crate::exit::ExitStatus;
use crate::link::LinkError;
use minions_api::vm::Failure as Layer;
use minions_api::{ErrorCode, Problem};
use minions_proto::connection::ExchangeError;
use minions_proto::error::{AgentError, ErrorCode as AgentCode};
use minions_proto::exec_client::StreamError;
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::DialError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The agent's socket.
    #[error("no connection to the agent at {}", .path.display())]
    Dial {
        /// Which.
        path: PathBuf,
        /// Why.
        source: DialError,
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
    /// The guest did not reboot in time.
    #[error("not rebooted within {}: {seen}", humantime::format_duration(*.within))]
    NotRebooted {
        /// The limit.
        within: Duration,
        /// What was seen last.
        seen: String,
    },
    /// The guest did not power off in time.
    #[error("not powered off within {}: {seen}", humantime::format_duration(*.within))]
    NotPoweredOff {
        /// The limit.
        within: Duration,
        /// What was seen last.
        seen: String,
    },
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
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Problem(problem) => problem_hint(problem),
            Self::Unreachable { .. } => {
                Some("is minionsd running? Name another place with --host or MINIONS_HOST")
            }
            Self::Dial { source, .. } => dial_hint(source),
            Self::NotReattached { .. } => {
                Some("if it still runs, `minionsctl ps VM` shows it, and `attach` comes back to it")
            }
            Self::NotReady(_) => Some("`minionsctl get VM` says which layer is missing"),
            Self::NotRebooted { .. } => Some(
                "it may still reboot: `minionsctl wait VM --rebooted-since BOOT_ID` waits for that",
            ),
            Self::NotPoweredOff { .. } => {
                Some("it may still power off; --force does not wait for the guest's init")
            }
            _ => None,
        }
    }
}

fn problem_hint(problem: &Problem) -> Option<&'static str> {
    match problem.code {
        ErrorCode::VmNotFound => Some("`minionsctl ls` lists the VMs"),
        ErrorCode::AgentUnreachable => match problem.failure {
            Some(Layer::NoAgent) => {
                Some("is minions-agent installed and running in the guest? If it is booting, wait")
            }
            Some(Layer::NoListener) => Some("remove the socket file, then start the VM"),
            Some(Layer::NoSocket | Layer::PoweredOff) => Some("start the VM"),
            Some(Layer::NoHandshake) => Some("wait if it is booting; resume it if it is paused"),
            Some(Layer::Rebooting) => Some("`minionsctl wait VM` waits until it is ready"),
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

fn dial_hint(error: &DialError) -> Option<&'static str> {
    match error {
        DialError::NoSocket(_) => Some("is the VM started, and with this vsock path?"),
        DialError::NoListener(_) => {
            Some("the VMM that made this socket has ended: remove the file, then start the VM")
        }
        DialError::Connect(_) => Some("do you have the permission? Try as root"),
        DialError::NotAccepted => Some("the VMM hangs"),
        DialError::Handshake(HandshakeError::TimedOut(_)) => {
            Some("the guest is booting, paused, or hangs")
        }
        DialError::Handshake(_) => {
            Some("is minions-agent installed and running in the guest? If it is booting, wait")
        }
    }
}
