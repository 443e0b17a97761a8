//! A netlink socket for one operation.

use crate::netlink::{NetlinkSocket, RequestFlags};
use std::io;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub(crate) struct StepError {
    /// Name of the step, as a noun phrase or gerund.
    step: &'static str,
    source: io::Error,
}

impl StepError {
    pub(super) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Netlink socket whose errors name the step.
pub(super) struct Rtnl(NetlinkSocket);

impl Rtnl {
    pub(super) fn open() -> io::Result<Self> {
        NetlinkSocket::open().map(Self)
    }

    /// Sends a request that changes an object.
    pub(super) async fn change(
        &self,
        step: &'static str,
        kind: u16,
        flags: RequestFlags,
        message: &[u8],
    ) -> Result<(), StepError> {
        let changed = self.0.request(kind, flags, message).await;
        changed.map(drop).map_err(|source| StepError { step, source })
    }

    /// Sends a request for all objects, or for one, and parses the messages of the reply.
    pub(super) async fn read<T>(
        &self,
        step: &'static str,
        kind: u16,
        flags: RequestFlags,
        request: &[u8],
        parse: fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, StepError> {
        let bodies = self.0.request(kind, flags, request).await;
        let bodies = bodies.map_err(|source| StepError { step, source })?;
        let parsed = bodies.iter().map(|body| parse(body)).collect::<Option<_>>();
        let malformed = || StepError { step, source: io::ErrorKind::InvalidData.into() };
        parsed.ok_or_else(malformed)
    }
}
