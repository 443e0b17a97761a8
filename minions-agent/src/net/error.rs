//! Errors of network changes.

use super::rtnl::StepError;
use minions_proto::Invalid;
use minions_proto::name_server::ServerAddress;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Reason why the network could not be configured or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("netlink is not available")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("this guest has no Ethernet interface")]
    NoInterface,
    #[error(
        "this guest has no free Ethernet interface: {port} is a port of {of}; configure {of} instead"
    )]
    OnlyPort { port: String, of: String },
    #[error("IPv6 is off in this guest on {link}: {reason}")]
    NoIpv6 { link: String, reason: String },
    #[error("cannot read or set accept_ra (router advertisements)")]
    Routers(#[source] io::Error),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("cannot read or write {}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the service that manages the name servers did not reload its configuration")]
    Reload(#[source] io::Error),
    #[error("failed to return {link} to NetworkManager")]
    NetworkManager { link: String, source: io::Error },
    #[error("cannot set the hostname")]
    Hostname(#[source] io::Error),
    #[error("{link} has no carrier")]
    NoCarrier { link: String },
    #[error("{address} is already in use by another host on {link}")]
    Duplicate { address: IpAddr, link: String },
    #[error("{address} did not become usable on {link}")]
    Unusable { address: IpAddr, link: String },
    #[error("packets to the gateway {gateway} would not leave directly through {link}")]
    Elsewhere { gateway: IpAddr, link: String },
    #[error("the gateway {gateway} does not answer on {link}")]
    Silent { gateway: IpAddr, link: String },
    #[error("the name server {server} does not answer")]
    NoNames { server: ServerAddress, source: io::Error },
    #[error("there is no name server to query")]
    NoServers,
    #[error("the change took too long")]
    TooLong,
    #[error("cannot update the journal {}", .path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("`confirm_within_ms` needs the journal {}, which cannot be written; make room for it in its file system, \
             or omit `confirm_within_ms`", .path.display())]
    Unconfirmable { path: PathBuf, source: io::Error },
    #[error("the change {id} waits for its confirmation")]
    Pending { id: String },
    #[error("no change with this id waits for confirmation: it was rolled back or never existed")]
    ChangeGone,
    #[error("the configuration was interrupted")]
    Interrupted,
}

impl NetworkError {
    /// Returns the address that another host on the link uses.
    pub(crate) fn duplicate(&self) -> Option<IpAddr> {
        match self {
            Self::Duplicate { address, .. } => Some(*address),
            _ => None,
        }
    }

    /// Returns the kernel's error number if the kernel refused a step.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source)
            | Self::Routers(source)
            | Self::Reload(source)
            | Self::Hostname(source)
            | Self::Journal { source, .. }
            | Self::Unconfirmable { source, .. }
            | Self::NoNames { source, .. }
            | Self::NetworkManager { source, .. }
            | Self::File { source, .. } => source.raw_os_error(),
            Self::Step(error) => error.errno(),
            Self::Invalid(_)
            | Self::NoInterface
            | Self::OnlyPort { .. }
            | Self::NoIpv6 { .. }
            | Self::NoCarrier { .. }
            | Self::Duplicate { .. }
            | Self::Unusable { .. }
            | Self::Elsewhere { .. }
            | Self::Silent { .. }
            | Self::NoServers
            | Self::TooLong
            | Self::Pending { .. }
            | Self::ChangeGone
            | Self::Interrupted => None,
        }
    }
}

/// A change that failed.
#[derive(Debug)]
pub(crate) struct ChangeError {
    /// Step that failed, as in the reply's `step`.
    pub(crate) step: &'static str,
    pub(crate) error: NetworkError,
    /// `Ok` if the network is as it was before the change, else the reason why it could not be restored.
    pub(crate) restored: Result<(), Box<NetworkError>>,
}

impl ChangeError {
    /// Makes the error of a change that failed before anything was changed.
    pub(super) fn untouched(error: impl Into<NetworkError>) -> Self {
        Self { step: "plan", error: error.into(), restored: Ok(()) }
    }

    /// Makes the error of a change that is applied, but whose journal remains: the next agent would undo it.
    pub(super) fn unjournaled(error: NetworkError) -> Self {
        Self { step: "journal", error, restored: Err(Box::new(NetworkError::Interrupted)) }
    }

    /// Makes the error of a change whose task panicked, which is a bug.
    pub(super) fn interrupted() -> Self {
        let restored = Err(Box::new(NetworkError::Interrupted));
        Self { step: "apply", error: NetworkError::Interrupted, restored }
    }
}
