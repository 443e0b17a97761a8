//! The error type of all commands, with hints and exit codes. [`code`]: stable codes.

mod code;

use crate::agent_address::AgentAddress;
use crate::connect_failure::{ConnectFailure, PATH_TOO_LONG};
use crate::contexts::ContextError;
use crate::copy_error::CopyError;
use crate::exit::ExitStatus;
use crate::host_address::InvalidHost;
use crate::link_error::LinkError;
use crate::ssh_error::SshError;
use minions_api::vm::Failure as Layer;
use minions_api::{ErrorCode, Problem};
use minions_declare::document::DocumentError;
use minions_proto::AgentPort;
use minions_proto::connection::ExchangeError;
use minions_proto::error::{AgentError, ErrorCode as AgentCode};
use minions_proto::exec_client::StreamError;
use minions_proto::foreign_service::ForeignService;
use minions_proto::handshake::HandshakeError;
use minions_proto::hybrid::DialError;
use minions_proto::port::InvalidPort;
use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
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
        /// Reason.
        source: ConnectFailure,
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
    /// Malformed address of minionsd, from `--host`, the environment, a context or a file.
    #[error(transparent)]
    Host(#[from] InvalidHost),
    /// A context does not exist or cannot be changed.
    #[error(transparent)]
    Context(#[from] ContextError),
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
    /// A declarations file is malformed.
    #[error("{} is not a declarations file", .path.display())]
    Declarations {
        /// Path of the file.
        path: PathBuf,
        /// Field, position and reason.
        source: DocumentError,
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
    /// Invalid port in a variable or a file.
    #[error("`{setting}` is {value:?}")]
    Port {
        /// Name of the setting.
        setting: &'static str,
        /// Configured value.
        value: String,
        /// Reason, with the accepted values.
        source: InvalidPort,
    },
    /// Connecting to an agent without minionsd failed.
    #[error("cannot connect to the agent at {}", .address.socket.display())]
    Dial {
        /// Address of the agent.
        address: AgentAddress,
        /// Reason.
        source: DialError,
    },
    /// Another service than an agent listens on the agent's port.
    #[error("another service answers on port {port} in the guest (it looks like {service})")]
    NotAnAgent {
        /// VSOCK port.
        port: AgentPort,
        /// Service that answered.
        service: ForeignService,
    },
    /// A call to an agent failed, without minionsd.
    #[error("the agent call failed")]
    Agent(#[from] ExchangeError),
    /// The arguments exclude each other, or the target does not support them.
    #[error("{0}")]
    Usage(&'static str),
    /// A variable has bytes that are not UTF-8.
    #[error("the variable {0} is not valid UTF-8")]
    NotText(&'static str),
    /// The arguments exclude each other, with the affected values.
    #[error("{0}")]
    UsageText(String),
    /// An argument has an invalid value.
    #[error(transparent)]
    Invalid(#[from] minions_proto::Invalid),
    /// `wait VM` reached its deadline.
    #[error("not ready in time: {0}")]
    NotReady(String),
    /// `wait --for` reached its deadline.
    #[error("not {goal} within {}: {seen}", humantime::format_duration(*.within))]
    NotReached {
        /// State that was waited for.
        goal: &'static str,
        /// Time limit.
        within: Duration,
        /// State of the VM at the limit.
        seen: String,
    },
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
    /// The lease of `quiesce` ended before the command on this host did.
    #[error(
        "the lease ended before {0:?} did, or another client or process thawed the guest: it was not quiesced until the \
         end of {0:?}, so a snapshot of it is not consistent"
    )]
    LeaseOver(String),
    /// The command of `quiesce` could not be started on this host.
    #[error("cannot run {program:?} on this host")]
    HostCommand {
        /// Program as given.
        program: String,
        /// Reason.
        source: io::Error,
    },
    /// Listening on an address for `forward` failed.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address or path.
        address: String,
        /// Reason.
        source: io::Error,
    },
    /// A listener of `forward` failed.
    #[error("cannot accept connections any more")]
    Listen(#[source] io::Error),
    /// Writing to standard output or standard error failed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A copy failed on this host, or its arguments contradict the files.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// An SSH command failed before or outside of a program.
    #[error(transparent)]
    Ssh(#[from] SshError),
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
            Self::HostCommand { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ExitStatus::NotFound
            }
            Self::HostCommand { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                ExitStatus::NotExecutable
            }
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
            Self::Unreachable { source, .. } => source.is_transient(),
            Self::NoAnswer { .. }
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

    /// Reports whether the request may have had its effect despite the failure, so that a repetition may find it done.
    pub(crate) fn may_have_executed(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.may_have_executed,
            Self::Agent(ExchangeError::Lost { sent, .. }) => *sent,
            Self::Agent(ExchangeError::Encode(_) | ExchangeError::Agent(_)) => false,
            Self::Agent(ExchangeError::TimedOut | ExchangeError::Protocol(_)) => true,
            Self::NoAnswer { .. } | Self::Silent { .. } | Self::BrokeOff { .. } => true,
            _ => false,
        }
    }

    /// Returns advice, unless the error itself says what to do.
    pub(crate) fn hint(&self) -> Option<Cow<'static, str>> {
        let hint = match self {
            Self::Problem(problem) => problem_hint(problem)?,
            Self::Unreachable { source, .. } => source.hint(),
            Self::Dial { address, source } => return dial_hint(address, source),
            Self::NotAnAgent { .. } => {
                "select the port of minions-agent with --port; `minions-agent --port` sets it in the guest"
            }
            Self::NotReattached { .. } => {
                "if `minionsctl ps VM` still lists the program, `minionsctl attach VM ID` re-attaches"
            }
            Self::LeaseOver(_) => "use a longer --ttl, at most 10m",
            Self::NotReady(_) => "`minionsctl doctor VM` shows which layer failed",
            Self::NotRebooted { .. } => {
                "it may still reboot: `minionsctl wait VM --rebooted-since BOOT_ID` waits for that"
            }
            Self::NotPoweredOff { .. } => {
                "it may still power off; --force does not wait for the guest's init"
            }
            _ => return None,
        };
        Some(hint.into())
    }
}

/// Returns the advice on the layer that failed, or on the code of the problem.
fn problem_hint(problem: &Problem) -> Option<&'static str> {
    let advice = problem.failure.map(Layer::advice).or(problem.code.info().advice);
    let executed = "the request may have been executed nevertheless";
    advice.or_else(|| problem.may_have_executed.then_some(executed))
}

fn dial_hint(address: &AgentAddress, error: &DialError) -> Option<Cow<'static, str>> {
    let hint = match error {
        DialError::NoSocket(_) => "is the VM running, with this path as its vsock socket?",
        DialError::NoListener(_) if !is_socket(&address.socket) => "this file is not a socket",
        DialError::NoListener(_) => {
            "the VMM that created this socket has ended: remove the file, then start the VM"
        }
        DialError::Connect(error) => connect_hint(error.kind())?,
        DialError::NotAccepted => "the VMM does not accept the connection: it may hang",
        DialError::Handshake(HandshakeError::Refused) => {
            let port = address.port;
            return Some(Cow::Owned(format!(
                "is minions-agent installed and running in the guest, on port {port}? Wait if the guest is booting"
            )));
        }
        DialError::Handshake(HandshakeError::TimedOut(_)) => {
            "the guest is booting, paused, or hangs; wait if it is booting"
        }
        DialError::Handshake(HandshakeError::Truncated | HandshakeError::Line(_)) => {
            "is this the hybrid vsock socket of a VM?"
        }
        DialError::Handshake(HandshakeError::SplitWrite | HandshakeError::Io(_)) => return None,
    };
    Some(hint.into())
}

/// Returns advice for a socket to which connecting failed.
fn connect_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => {
            Some("only root and the user of the VMM may connect to this socket")
        }
        // The path is longer than 107 bytes, or contains a NUL.
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
    fn only_a_permission_error_leads_to_a_hint_about_permissions() {
        let hint = |kind| connect_hint(kind).unwrap_or_default();
        assert!(hint(io::ErrorKind::PermissionDenied).contains("only root"));
        assert!(hint(io::ErrorKind::InvalidInput).contains("107 bytes"));
        for kind in [io::ErrorKind::NotADirectory, io::ErrorKind::Other, io::ErrorKind::OutOfMemory]
        {
            assert_eq!(hint(kind), "", "{kind}");
        }
    }
}
