//! The error type of all commands, with hints and exit codes.

use crate::exit::ExitStatus;
use crate::link::error::LinkError;
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

/// Failure of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// minionsd answered with a problem.
    #[error("{}", .0.detail)]
    Problem(Box<Problem>),
    /// Connecting to minionsd failed.
    #[error("cannot reach minionsd at {host}")]
    Unreachable {
        /// Address of minionsd.
        host: String,
        /// Error of the HTTP client.
        source: reqwest::Error,
    },
    /// minionsd was reached, but its answer broke off or took too long.
    #[error("no complete answer from minionsd at {host}")]
    NoAnswer {
        /// Address of minionsd.
        host: String,
        /// Error of the HTTP client.
        source: reqwest::Error,
    },
    /// The answer is not one that minionsd gives.
    #[error("unexpected answer from {host}, which may not be minionsd: {what}")]
    NotMinionsd {
        /// Address of the server.
        host: String,
        /// Description of the answer.
        what: String,
    },
    /// The command reached its `--timeout`.
    #[error("no result within {} (--timeout)", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// A streamed answer did not start or continue in time.
    #[error("minionsd at {host} stopped responding")]
    Silent {
        /// Address of minionsd.
        host: String,
    },
    /// A streamed answer ended before its last event.
    #[error("minionsd at {host} ended its answer early")]
    BrokeOff {
        /// Address of minionsd.
        host: String,
    },
    /// The stream to a program broke.
    #[error("lost the connection to the program")]
    Link(#[from] LinkError),
    /// The stream to a program broke, and every attempt to re-attach failed.
    #[error("lost the connection to the program, and could not re-attach within {}", humantime::format_duration(*.patience))]
    NotReattached {
        /// Duration of the attempts.
        patience: Duration,
        /// Error of the last attempt.
        source: Box<Failure>,
    },
    /// The stream to a program broke, and re-attaching failed with a permanent error.
    #[error("lost the connection to the program, and cannot re-attach")]
    NoWayBack(#[source] Box<Failure>),
    /// The stream is malformed, or its offsets contradict what was received.
    #[error("lost the program: its stream is invalid")]
    Stream(#[from] StreamError),
    /// Another client attached.
    #[error("taken over by another client")]
    TakenOver(#[source] AgentError),
    /// Reading standard input failed.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// The terminal on standard input could not be set to raw mode.
    #[error("cannot set up the terminal")]
    Terminal(#[source] io::Error),
    /// Malformed address of minionsd, from `--host`, the environment or a file.
    #[error(
        "invalid address of minionsd {0:?}: must be http://HOST:PORT, https://HOST:PORT or unix://PATH"
    )]
    Host(String),
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// A request file is not JSON, or not the expected request.
    #[error("{} {}", .path.display(), if .source.is_data() { "is not a network configuration" } else { "contains malformed JSON" })]
    Json {
        /// Path of the file.
        path: PathBuf,
        /// Reason, with line and column.
        source: serde_json::Error,
    },
    /// A PEM file lacks the expected content.
    #[error("{} contains no PEM {what}", .path.display())]
    Pem {
        /// Path of the file.
        path: PathBuf,
        /// Expected content.
        what: &'static str,
    },
    /// Malformed configuration file of minionsctl.
    #[error("invalid configuration file {}", .path.display())]
    Config {
        /// Path of the file.
        path: PathBuf,
        /// Position and reason.
        source: Box<toml::de::Error>,
    },
    /// Connecting to an agent without minionsd failed.
    #[error("cannot connect to the agent at {}", .path.display())]
    Dial {
        /// Path of the VM's socket.
        path: PathBuf,
        /// Reason.
        source: DialError,
    },
    /// A call to an agent failed, without minionsd.
    #[error("the agent call failed")]
    Agent(#[from] ExchangeError),
    /// The arguments exclude each other, or the target does not support them.
    #[error("{0}")]
    Usage(&'static str),
    /// An argument has an invalid value.
    #[error(transparent)]
    Invalid(#[from] minions_proto::Invalid),
    /// `wait VM` reached its deadline.
    #[error("not ready in time: {0}")]
    NotReady(String),
    /// `--rebooted-since` or `reboot --wait` reached its deadline.
    #[error("not rebooted within {}: {seen}", humantime::format_duration(*.within))]
    NotRebooted {
        /// Time limit.
        within: Duration,
        /// State of the VM at the limit.
        seen: String,
    },
    /// `poweroff --wait` reached its deadline.
    #[error("not powered off within {}: {seen}", humantime::format_duration(*.within))]
    NotPoweredOff {
        /// Time limit.
        within: Duration,
        /// State of the VM at the limit.
        seen: String,
    },
    /// `wait VM ID` reached its deadline.
    #[error("{0} is still running")]
    StillRuns(String),
    /// Writing to standard output or standard error failed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The async runtime, a thread or a signal handler could not be set up.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Failure {
    /// Neither a VM nor `--socket` is given.
    pub(crate) const WHICH_VM: Self =
        Self::Usage("no VM given: name one (`minionsctl ls` lists them), or use --socket PATH");

    /// Returns the exit status. Commands with the exit code of a program never end with 1 because of a failure.
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

    /// Reports whether a retry may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            // A daemon that has just started may not have found the VM yet.
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

    /// Reports whether the program may have been started despite the failure.
    pub(crate) fn may_have_started(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.retryable && problem.may_have_executed,
            Self::Link(error) => error.is_transient(),
            Self::Agent(ExchangeError::Lost { sent, .. }) => *sent,
            Self::Agent(ExchangeError::TimedOut) => true,
            _ => false,
        }
    }

    /// Returns advice, unless the error itself says what to do.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Problem(problem) => problem_hint(problem),
            Self::Unreachable { .. } => {
                Some("is minionsd running? --host or MINIONS_HOST selects another address")
            }
            Self::Dial { source, .. } => dial_hint(source),
            Self::NotReattached { .. } => Some(
                "if `minionsctl ps VM` still lists the program, `minionsctl attach VM ID` re-attaches",
            ),
            Self::NotReady(_) => Some("`minionsctl doctor VM` shows which layer failed"),
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
            Some(Layer::NoAgent) => Some(
                "is minions-agent installed and running in the guest? Wait if the guest is booting",
            ),
            Some(Layer::NoListener) => Some("remove the socket file, then start the VM"),
            Some(Layer::NoSocket | Layer::PoweredOff) => Some("start the VM"),
            Some(Layer::NoHandshake) => {
                Some("wait if the guest is booting; resume it if it is paused")
            }
            Some(Layer::Rebooting) => Some("`minionsctl wait VM` waits until the VM is ready"),
            _ => Some("`minionsctl doctor VM` shows which layer failed"),
        },
        ErrorCode::AgentTooOld => Some("install a newer minions-agent in the guest"),
        ErrorCode::Unauthenticated | ErrorCode::Forbidden => {
            Some("use the Unix socket as root or as a member of the group minions, or --token-file")
        }
        _ if problem.may_have_executed => {
            Some("the guest may have executed the request nevertheless")
        }
        _ => None,
    }
}

fn dial_hint(error: &DialError) -> Option<&'static str> {
    match error {
        DialError::NoSocket(_) => Some("is the VM running, with this path as its vsock socket?"),
        DialError::NoListener(_) => {
            Some("the VMM that created this socket has ended: remove the file, then start the VM")
        }
        DialError::Connect(_) => Some("check the permissions of the socket, or try as root"),
        DialError::NotAccepted => Some("the VMM does not accept the connection: it may hang"),
        DialError::Handshake(HandshakeError::TimedOut(_)) => {
            Some("the guest is booting, paused, or hangs")
        }
        DialError::Handshake(_) => Some(
            "is minions-agent installed and running in the guest? Wait if the guest is booting",
        ),
    }
}
