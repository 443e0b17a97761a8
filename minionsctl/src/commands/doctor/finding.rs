//! What was found about one layer.

use crate::failure::Failure;
use serde::Serialize;

/// The layers, from the outside in: each needs the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layer {
    /// minionsd.
    Daemon,
    /// The VM's socket on the host.
    Socket,
    /// The process that listens there.
    Vmm,
    /// Its answer to CONNECT.
    Connect,
    /// The agent behind it.
    Agent,
    /// What the agent knows.
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

/// How a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// As it should be.
    Fine,
    /// It works, but not for everything.
    Doubtful,
    /// It doesn't work.
    Broken,
    /// Nobody can say: a layer before it is broken, or it can't be looked at.
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

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) layer: Layer,
    pub(super) verdict: Verdict,
    /// In words.
    pub(super) finding: String,
    /// What to do about it.
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

    /// minionsd answers.
    pub(super) fn daemon() -> Self {
        Self::fine(Layer::Daemon, "it answers")
    }

    /// It doesn't.
    pub(super) fn no_daemon(error: &Failure) -> Self {
        let advice = error.hint().unwrap_or("systemctl status minionsd".into());
        Self::broken(Layer::Daemon, error.to_string(), advice)
    }

    /// It knows nothing of this VM.
    pub(super) fn unknown_vm(error: &Failure) -> Self {
        let advice = "start the VM with its vsock socket at <socket_dir>/<vm>.vsock; `minionsctl ls` \
                      lists those that are found";
        Self::broken(Layer::Socket, error.to_string(), advice)
    }
}
