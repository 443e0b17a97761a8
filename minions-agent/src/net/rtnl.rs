//! A netlink socket for one operation.

use futures_util::{Stream, TryStreamExt};
use netlink_packet_core::Emitable;
use rtnetlink::Handle;
use std::io;
use std::ops::Deref;
use tokio::task::JoinHandle;

/// A step that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub(crate) struct StepError {
    /// Name of the step, as a noun phrase or gerund.
    step: &'static str,
    source: rtnetlink::Error,
}

impl StepError {
    /// Returns a conversion for `map_err` that adds the name of the step.
    pub(super) fn at(step: &'static str) -> impl Fn(rtnetlink::Error) -> Self {
        move |source| Self { step, source }
    }

    pub(super) fn errno(&self) -> Option<i32> {
        match &self.source {
            rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().abs()),
            _ => None,
        }
    }
}

/// Netlink socket, and the task that reads it.
pub(super) struct Rtnl {
    handle: Handle,
    reader: JoinHandle<()>,
}

impl Rtnl {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, reader: tokio::spawn(connection) })
    }
}

impl Deref for Rtnl {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Rtnl {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Collects all messages of a dump.
pub(super) async fn dump<T>(
    step: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, StepError> {
    stream.try_collect().await.map_err(StepError::at(step))
}

/// Encodes a netlink message.
pub(super) fn bytes(message: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}
