//! What goes wrong with a network.

use super::rtnl::StepError;
use minions_proto::Invalid;
use minions_proto::name_server::ServerAddress;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why the network is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("netlink isn't available")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("this guest has no Ethernet interface")]
    NoInterface,
    #[error("this guest has no Ethernet interface of its own: {port} is a port of {of}; name {of}")]
    OnlyPort { port: String, of: String },
    #[error("IPv6 is off in this guest on {link}: {reason}")]
    NoIpv6 { link: String, reason: String },
    #[error("router advertisements can't be turned off")]
    Routers(#[source] io::Error),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("{} can't be written", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the service that has the name servers does not take them")]
    Reload(#[source] io::Error),
    #[error("NetworkManager does not take {link} back")]
    NetworkManager { link: String, source: io::Error },
    #[error("the hostname can't be set")]
    Hostname(#[source] io::Error),
    #[error("{link} has no carrier")]
    NoCarrier { link: String },
    #[error("{address} is somebody else's already on {link}")]
    Duplicate { address: IpAddr, link: String },
    #[error("{address} does not become usable on {link}")]
    Unusable { address: IpAddr, link: String },
    #[error("packets for the gateway {gateway} would not leave over {link}")]
    Elsewhere { gateway: IpAddr, link: String },
    #[error("the gateway {gateway} does not answer on {link}")]
    Silent { gateway: IpAddr, link: String },
    #[error("the name server {server} does not answer")]
    NoNames { server: ServerAddress, source: io::Error },
    #[error("there are no name servers to ask")]
    NoServers,
    #[error("it took too long")]
    TooLong,
    #[error("the journal of the change, {}, cannot be written", .path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("`confirm_within_ms` needs the journal {}, which cannot be written; make room for it in its file system, \
             or omit `confirm_within_ms`", .path.display())]
    Unconfirmable { path: PathBuf, source: io::Error },
    #[error("the change {id} waits for its confirmation")]
    Pending { id: String },
    #[error("no such change waits for a confirmation: it was put back, or never was")]
    ChangeGone,
    #[error("the configuration was cut off")]
    Interrupted,
}

impl NetworkError {
    /// The kernel's error number, if it was the kernel that said no.
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
    /// What was being done.
    pub(crate) step: &'static str,
    pub(crate) error: NetworkError,
    /// Why the network is not as it was before.
    pub(crate) restored: Result<(), Box<NetworkError>>,
}

impl ChangeError {
    /// It failed before anything was touched.
    pub(super) fn untouched(error: impl Into<NetworkError>) -> Self {
        Self { step: "plan", error: error.into(), restored: Ok(()) }
    }

    /// The change is there, and an agent that starts would put it back.
    pub(super) fn unjournaled(error: NetworkError) -> Self {
        Self { step: "journal", error, restored: Err(Box::new(NetworkError::Interrupted)) }
    }

    /// A bug.
    pub(super) fn interrupted() -> Self {
        let restored = Err(Box::new(NetworkError::Interrupted));
        Self { step: "apply", error: NetworkError::Interrupted, restored }
    }
}
