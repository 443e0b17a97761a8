//! Stable codes of failures, for `-o json`.

use super::Failure;
use minions_api::Problem;

impl Failure {
    /// Returns the problem of minionsd that is the failure or its cause.
    pub(crate) fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::NotReattached { source, .. } | Self::NoWayBack(source) => source.problem(),
            _ => None,
        }
    }

    /// Returns the stable code: that of the problem, or one of minionsctl's own.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Problem(problem) => problem.code.info().name,
            Self::Unreachable { .. } => "daemon_unreachable",
            Self::NoAnswer { .. } | Self::Silent { .. } | Self::BrokeOff { .. } => "no_answer",
            Self::NotMinionsd { .. } => "unexpected_answer",
            Self::TimedOut(_)
            | Self::NotReady(_)
            | Self::NotReached { .. }
            | Self::NotRebooted { .. }
            | Self::NotPoweredOff { .. }
            | Self::StillRuns(_) => "timed_out",
            Self::Link(_)
            | Self::NotReattached { .. }
            | Self::NoWayBack(_)
            | Self::Stream(_)
            | Self::TakenOver(_) => "program_lost",
            Self::Dial { .. } | Self::NotAnAgent { .. } => "agent_unreachable",
            Self::Agent(_) => "agent_error",
            Self::Usage(_)
            | Self::UsageText(_)
            | Self::NotText(_)
            | Self::Invalid(_)
            | Self::Host(_)
            | Self::Context(_)
            | Self::Json { .. }
            | Self::Declarations { .. }
            | Self::Pem { .. }
            | Self::Config { .. }
            | Self::Port { .. } => "invalid_usage",
            Self::LeaseOver(_) => "lease_over",
            Self::HostCommand { .. } => "host_command_failed",
            Self::Copy(_) => "copy_failed",
            Self::Ssh(_) => "ssh_failed",
            Self::Input(_)
            | Self::Terminal(_)
            | Self::File { .. }
            | Self::Bind { .. }
            | Self::Listen(_)
            | Self::Output(_)
            | Self::Runtime(_) => "host_error",
        }
    }
}
