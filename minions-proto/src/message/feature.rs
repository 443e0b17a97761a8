//! Features that an agent announces in its health reply.

use super::bounded;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
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
    /// `samples`: [`ReportSample`](super::ReportSample).
    Samples,
}

impl Feature {
    /// All features of this version, in the order in which an agent announces them.
    pub const ALL: [Self; 13] = [
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
        Self::Samples,
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
            Self::Samples => "samples",
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
            Self::Samples => "status",
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
            Self::Samples => "samples of its figures",
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
pub struct Features(Box<[FeatureName]>);

/// Name of a feature. Only unknown ones take memory: a daemon with thousands of agents has each list many times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct FeatureName(Cow<'static, str>);

impl FeatureName {
    fn of(name: &str) -> Self {
        let known = Feature::ALL.into_iter().map(Feature::name).find(|known| *known == name);
        Self(known.map_or_else(|| Cow::Owned(name.to_owned()), Cow::Borrowed))
    }
}

impl<'de> Deserialize<'de> for FeatureName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(FeatureNameVisitor)
    }
}

struct FeatureNameVisitor;

impl Visitor<'_> for FeatureNameVisitor {
    type Value = FeatureName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a feature")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<FeatureName, E> {
        Ok(FeatureName::of(name))
    }
}

impl Features {
    /// Reports whether the agent announces the feature.
    #[must_use]
    pub fn supports(&self, feature: Feature) -> bool {
        self.names().any(|name| name == feature.name())
    }

    /// Returns the names in the order of the agent.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &*name.0)
    }
}

impl From<Vec<String>> for Features {
    fn from(names: Vec<String>) -> Self {
        names.iter().map(String::as_str).collect()
    }
}

impl<'a> FromIterator<&'a str> for Features {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(names.into_iter().map(FeatureName::of).collect())
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let name = |feature: Feature| FeatureName(Cow::Borrowed(feature.name()));
        Self(features.into_iter().map(name).collect())
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bounded::list::<MAX, D, FeatureName>(deserializer).map(|names| Self(names.into()))
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
        assert_eq!(features.names().collect::<Vec<_>>(), ["exec2", "teleport", "clock"]);
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
            Feature::Reuse => Some(Feature::Samples),
            Feature::Samples => None,
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
