//! Features that an agent announces in its health reply.

use super::bounded;
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// Largest number of features in a health reply.
const MAX: usize = 256;

/// Capability of an agent beyond the base protocol. New features are added at the end; a feature
/// never changes its name or its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// `exec2`: execs as objects, and channel mode.
    Exec,
    /// `exec_limits`: [`memory_bytes`](super::ExecStart::memory_bytes) and
    /// [`pids`](super::ExecStart::pids), and the list of programs of earlier agents.
    ExecLimits,
    /// `network2`: all requests about the network, not only the base form.
    Network,
    /// `clock`: [`SetClock`](super::SetClock), and the guest's time in health replies.
    Clock,
    /// `power`: [`Power`](super::Power).
    Power,
    /// `files`: [`FileStart`](super::FileStart).
    Files,
    /// `forward`: [`ForwardOpen`](super::ForwardOpen).
    Forward,
    /// `file_session`: the operation [`ServeSession`](super::ServeSession) of
    /// [`FileStart`](super::FileStart).
    FileSession,
    /// `forward_listen`: [`ForwardListen`](super::ForwardListen) and
    /// [`ForwardAccept`](super::ForwardAccept).
    ForwardListen,
    /// `quiesce`: [`Quiesce`](super::Quiesce) and [`Thaw`](super::Thaw), and the lease in health replies.
    Quiesce,
    /// `generations`: [`TokenCheck`](super::TokenCheck) and [`RestoreRequest`](super::RestoreRequest).
    Generations,
    /// `reuse`: after the last control message of an exec's stream, the connection takes requests again.
    Reuse,
}

impl Feature {
    /// All features of this version, in the order in which an agent announces them.
    pub const ALL: [Self; 12] = [
        Self::Exec,
        Self::ExecLimits,
        Self::Network,
        Self::Clock,
        Self::Power,
        Self::Files,
        Self::Forward,
        Self::FileSession,
        Self::ForwardListen,
        Self::Quiesce,
        Self::Generations,
        Self::Reuse,
    ];

    /// Returns the name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec2",
            Self::ExecLimits => "exec_limits",
            Self::Network => "network2",
            Self::Clock => "clock",
            Self::Power => "power",
            Self::Files => "files",
            Self::Forward => "forward",
            Self::FileSession => "file_session",
            Self::ForwardListen => "forward_listen",
            Self::Quiesce => "quiesce",
            Self::Generations => "generations",
            Self::Reuse => "reuse",
        }
    }

    /// Returns the operation that an agent must serve to announce the feature, as in
    /// [`OPERATIONS`](super::OPERATIONS).
    #[must_use]
    pub fn operation(self) -> &'static str {
        match self {
            Self::Exec | Self::ExecLimits | Self::Reuse => "exec",
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Power => "power",
            Self::Files | Self::FileSession => "files",
            Self::Forward | Self::ForwardListen => "forward",
            Self::Quiesce => "quiesce",
            Self::Generations => "health",
        }
    }

    /// Returns what an agent without the feature does not support, for people: the end of "this
    /// agent version does not support …".
    #[must_use]
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Exec => "execs",
            Self::ExecLimits => "limits of memory and processes for programs",
            Self::Network => "reading the network, or settings beyond `ip`, `gateway` and `dns`",
            Self::Clock => "setting the guest's clock",
            Self::Power => "powering off or rebooting the guest",
            Self::Files => "operations on files and directories",
            Self::Forward => "connections to ports and sockets in the guest",
            Self::FileSession => "file sessions, which sftp and scp need",
            Self::ForwardListen => "listening on ports and sockets in the guest",
            Self::Quiesce => "quiescing the guest for a snapshot",
            Self::Generations => "the steps after a restore from a snapshot",
            Self::Reuse => "requests on the connection of a stream that has ended",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names of the features that an agent announces, including those that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Features(Vec<String>);

impl Features {
    /// Reports whether the agent announces the feature.
    #[must_use]
    pub fn supports(&self, feature: Feature) -> bool {
        self.0.iter().any(|name| name == feature.name())
    }

    /// Returns the names in the order of the agent.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Returns the names in the order of the agent.
    #[must_use]
    pub fn into_names(self) -> Vec<String> {
        self.0
    }
}

impl From<Vec<String>> for Features {
    fn from(names: Vec<String>) -> Self {
        Self(names)
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        Self(features.into_iter().map(|feature| feature.name().to_owned()).collect())
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded::list::<MAX, D, String>(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::OPERATIONS;
    use std::collections::BTreeSet;

    #[test]
    fn a_list_is_a_list_on_the_wire_and_unknown_features_are_kept() {
        let json = r#"["exec2","teleport","clock"]"#;
        let features: Features = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&features).unwrap(), json);
        assert!(features.supports(Feature::Exec) && features.supports(Feature::Clock));
        assert!(!features.supports(Feature::ExecLimits) && !features.supports(Feature::Network));
        assert_eq!(features.into_names(), ["exec2", "teleport", "clock"]);
    }

    #[test]
    fn all_features_are_listed() {
        // A new feature does not compile until it has a place in this chain.
        let next = |feature| match feature {
            Feature::Exec => Some(Feature::ExecLimits),
            Feature::ExecLimits => Some(Feature::Network),
            Feature::Network => Some(Feature::Clock),
            Feature::Clock => Some(Feature::Power),
            Feature::Power => Some(Feature::Files),
            Feature::Files => Some(Feature::Forward),
            Feature::Forward => Some(Feature::FileSession),
            Feature::FileSession => Some(Feature::ForwardListen),
            Feature::ForwardListen => Some(Feature::Quiesce),
            Feature::Quiesce => Some(Feature::Generations),
            Feature::Generations => Some(Feature::Reuse),
            Feature::Reuse => None,
        };
        let chain: Vec<_> =
            std::iter::successors(Some(Feature::Exec), |last| next(*last)).collect();
        assert_eq!(Feature::ALL.to_vec(), chain);
    }

    #[test]
    fn each_feature_has_a_name_of_its_own_an_operation_and_a_phrase() {
        let names: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
        let phrases: BTreeSet<_> = Feature::ALL.iter().map(|feature| feature.phrase()).collect();
        assert_eq!((names.len(), phrases.len()), (Feature::ALL.len(), Feature::ALL.len()));
        for feature in Feature::ALL {
            assert!(OPERATIONS.contains(&feature.operation()), "{feature}");
            let phrase = feature.phrase();
            assert!(phrase.starts_with(char::is_lowercase) && !phrase.ends_with('.'), "{phrase}");
        }
    }
}
