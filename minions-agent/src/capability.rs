//! Capabilities: the kinds of requests that an agent answers.
//!
//! The guest image limits the requests that a host can make. For example, a guest in which no commands may be
//! run starts its agent with `--allow health,status`.

use minions_proto::Request;
use minions_proto::message::{Feature, Features};
use std::str::FromStr;

/// A kind of request, named as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// `health`: check that the agent is alive, and identify it.
    Health,
    /// `status`: report the state of the guest and its network.
    Status,
    /// `network`: configure the guest's network.
    Network,
    /// `exec`: run programs.
    Exec,
    /// `write_file`: write a file in the guest.
    WriteFile,
    /// `clock`: set the guest's clock.
    Clock,
    /// `power`: power off or reboot the guest.
    Power,
    /// `files`: read, write and change files of the guest.
    Files,
    /// `forward`: connect to ports and sockets in the guest, and listen on them.
    Forward,
    /// `quiesce`: freeze and thaw the guest's file systems.
    Quiesce,
}

impl Capability {
    pub(crate) const ALL: [Self; 10] = [
        Self::Health,
        Self::Status,
        Self::Network,
        Self::Exec,
        Self::WriteFile,
        Self::Clock,
        Self::Power,
        Self::Files,
        Self::Forward,
        Self::Quiesce,
    ];

    /// Returns the name in `--allow`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Status => "status",
            Self::Network => "network",
            Self::Exec => "exec",
            Self::WriteFile => "write_file",
            Self::Clock => "clock",
            Self::Power => "power",
            Self::Files => "files",
            Self::Forward => "forward",
            Self::Quiesce => "quiesce",
        }
    }

    /// Returns the capability that a request needs.
    #[must_use]
    pub fn needed_by(request: &Request) -> Self {
        match request {
            Request::HealthCheck(_) | Request::TokenCheck(_) | Request::Restore(_) => Self::Health,
            Request::ReportStatus(_) | Request::ReportSample(_) | Request::ReadNetwork(_) => {
                Self::Status
            }
            Request::ConfigureNetwork(_)
            | Request::ChangeNetwork(_)
            | Request::NetworkConfirm(_) => Self::Network,
            Request::Exec(_)
            | Request::ExecStart(_)
            | Request::ExecAttach(_)
            | Request::ExecList(_)
            | Request::ExecInspect(_)
            | Request::ExecSignal(_)
            | Request::ExecRemove(_) => Self::Exec,
            Request::WriteFile(_) => Self::WriteFile,
            Request::SetClock(_) => Self::Clock,
            Request::Power(_) => Self::Power,
            Request::FileStart(_) => Self::Files,
            Request::ForwardOpen(_) | Request::ForwardListen(_) | Request::ForwardAccept(_) => {
                Self::Forward
            }
            Request::Quiesce(_) | Request::Thaw(_) => Self::Quiesce,
        }
    }
}

/// A set of [`Capability`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Bit set, indexed by the discriminant of [`Capability`].
    bits: u16,
}

impl Capabilities {
    /// Returns all capabilities of this version: the default of an agent in a guest.
    #[must_use]
    pub fn all() -> Self {
        Self::from_iter(Capability::ALL)
    }

    /// Returns the default of an agent that detects no guest: all but `clock`, `power` and `quiesce`. They change
    /// the machine that the agent runs on, so they must be allowed explicitly there.
    #[must_use]
    pub fn without_the_machine() -> Self {
        let of_the_machine = [Capability::Clock, Capability::Power, Capability::Quiesce];
        Capability::ALL.into_iter().filter(|one| !of_the_machine.contains(one)).collect()
    }

    /// Returns the features that are served.
    pub(crate) fn features(self) -> Features {
        let serves = |feature: &Feature| self.iter().any(|one| one.name() == feature.operation());
        Feature::ALL.into_iter().filter(serves).collect()
    }

    /// Returns the names of the capabilities, or `None` if all are served.
    pub(crate) fn names(self) -> Option<Vec<String>> {
        let names = || self.iter().map(|one| one.name().to_owned()).collect();
        (self != Self::all()).then(names)
    }

    /// Reports whether the request is answered.
    ///
    /// An operation on files is an exec. So requests about an existing exec are also answered if only files are
    /// allowed: such an agent starts no other execs.
    pub(crate) fn permit(self, request: &Request) -> bool {
        let is_about_exec = matches!(
            request,
            Request::ExecAttach(_)
                | Request::ExecList(_)
                | Request::ExecInspect(_)
                | Request::ExecSignal(_)
                | Request::ExecRemove(_)
        );
        self.contain(Capability::needed_by(request))
            || (is_about_exec && self.contain(Capability::Files))
    }

    fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |one| self.contain(*one))
    }

    /// Reports whether requests of this kind are answered.
    #[must_use]
    pub fn contain(self, capability: Capability) -> bool {
        self.bits & bit(capability) != 0
    }
}

fn bit(capability: Capability) -> u16 {
    1 << capability as u8
}

impl FromIterator<Capability> for Capabilities {
    fn from_iter<I: IntoIterator<Item = Capability>>(capabilities: I) -> Self {
        Self { bits: capabilities.into_iter().fold(0, |bits, one| bits | bit(one)) }
    }
}

/// An unknown name in a list of capabilities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not one of health, status, network, exec, write_file, clock, power, files, forward, \
     quiesce"
)]
pub struct UnknownCapability {
    /// The name as it was given.
    pub name: String,
}

impl FromStr for Capabilities {
    type Err = UnknownCapability;

    /// Parses a list such as `health,status`. An empty list is an error: an agent that answers nothing is a
    /// mistake.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        list.split(',')
            .map(|name| {
                Capability::ALL
                    .into_iter()
                    .find(|capability| capability.name() == name)
                    .ok_or_else(|| UnknownCapability { name: name.to_owned() })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_exactly_what_is_allowed() {
        let some: Capabilities = "health,write_file".parse().unwrap();
        assert!(some.contain(Capability::Health) && some.contain(Capability::WriteFile));
        assert!(!some.contain(Capability::Exec));
        let every = Capability::ALL.map(Capability::name).join(",");
        assert_eq!(every.parse(), Ok(Capabilities::all()));
        assert_eq!(Capability::ALL.map(Capability::name), minions_proto::message::OPERATIONS);
    }

    #[test]
    fn features_are_those_of_the_allowed_capabilities() {
        let of = |list: &str| list.parse::<Capabilities>().unwrap();
        assert_eq!(
            of("health,status").features().names().collect::<Vec<_>>(),
            ["generations", "samples"]
        );
        assert_eq!(
            of("health,exec,clock").features().names().collect::<Vec<_>>(),
            ["exec2", "exec_limits", "clock", "generations", "reuse"]
        );
        assert_eq!(
            Capabilities::all().features().names().collect::<Vec<_>>(),
            [
                "exec2",
                "exec_limits",
                "network2",
                "clock",
                "power",
                "files",
                "forward",
                "file_session",
                "forward_listen",
                "quiesce",
                "generations",
                "reuse",
                "samples"
            ]
        );
        assert_eq!(of("health,write_file").names().unwrap(), ["health", "write_file"]);
        assert_eq!(Capabilities::all().names(), None);
    }

    #[test]
    fn a_misspelled_or_missing_name_is_refused() {
        for list in ["", "exec,", "health,exce", "Health", "health, exec"] {
            assert!(list.parse::<Capabilities>().is_err(), "{list:?}");
        }
    }
}
