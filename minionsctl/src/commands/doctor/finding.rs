//! Finding on one layer.

use crate::failure::Failure;
use serde::Serialize;

/// Layer between minionsd and the guest's name servers, from the host to the guest. Each depends on the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layer {
    /// The daemon.
    Daemon,
    /// The VM's socket on the host.
    Socket,
    /// The process that listens on the socket.
    Vmm,
    /// The VMM's answer to CONNECT.
    Connect,
    /// The agent in the guest.
    Agent,
    /// The agent's version and features.
    Version,
    /// The guest's clock.
    Clock,
    /// Addresses and routes.
    Network,
    /// Name servers.
    Dns,
}

impl Layer {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Daemon => "minionsd",
            Self::Socket => "socket",
            Self::Vmm => "VMM",
            Self::Connect => "CONNECT",
            Self::Agent => "agent",
            Self::Version => "version",
            Self::Clock => "clock",
            Self::Network => "network",
            Self::Dns => "DNS",
        }
    }
}

/// State of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// The layer works.
    Fine,
    /// The layer works with restrictions.
    Doubtful,
    /// The layer does not work.
    Broken,
    /// The state is unknown: a layer before is broken, or the layer cannot be examined.
    Unknown,
}

impl Verdict {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Doubtful => "warning",
            Self::Broken => "BROKEN",
            Self::Unknown => "-",
        }
    }
}

/// Finding on one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) layer: Layer,
    pub(super) verdict: Verdict,
    /// Description, for people.
    pub(super) finding: String,
    /// Advice, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn fine(layer: Layer, finding: impl Into<String>) -> Self {
        Self { layer, verdict: Verdict::Fine, finding: finding.into(), advice: None }
    }

    pub(super) fn unknown(layer: Layer, finding: impl Into<String>) -> Self {
        Self { layer, verdict: Verdict::Unknown, finding: finding.into(), advice: None }
    }

    pub(super) fn doubtful(
        layer: Layer,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        let advice = Some(advice.into());
        Self { layer, verdict: Verdict::Doubtful, finding: finding.into(), advice }
    }

    pub(super) fn broken(
        layer: Layer,
        finding: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Broken, ..Self::doubtful(layer, finding, advice) }
    }

    /// Returns the finding for a minionsd that answers.
    pub(super) fn daemon() -> Self {
        Self::fine(Layer::Daemon, "answers")
    }

    /// Returns the finding for a minionsd that does not answer.
    pub(super) fn no_daemon(error: &Failure) -> Self {
        let advice = error.hint().unwrap_or("systemctl status minionsd".into());
        Self::broken(Layer::Daemon, error.to_string(), advice)
    }

    /// Returns the finding for a VM that minionsd does not know.
    pub(super) fn unknown_vm(error: &Failure) -> Self {
        let advice = "start the VM with its vsock socket at <socket_dir>/<vm>.vsock; `minionsctl ls` \
                      lists the VMs that were found";
        Self::broken(Layer::Socket, error.to_string(), advice)
    }
}
