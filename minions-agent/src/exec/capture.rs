//! One pipe from a program, read into bounded memory.

use minions_proto::collect::HeadTail;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes a read. A pipe holds 64 KiB; more than a page or two at a time gains little.
const READ_LEN: usize = 16 * 1024;

/// A pipe and what came out of it.
#[derive(Debug)]
pub(super) struct Capture<R> {
    /// `None` once it has ended.
    pipe: Option<R>,
    kept: HeadTail,
}

impl<R: AsyncRead + Unpin> Capture<R> {
    pub(super) fn new(pipe: Option<R>) -> Self {
        Self { pipe, kept: HeadTail::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Waits for bytes and keeps them, or notes the end. An error ends it too: there is nothing
    /// more to get from a broken pipe.
    ///
    /// Cancel safe.
    pub(super) async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut bytes = [0; READ_LEN];
        match pipe.read(&mut bytes).await {
            Ok(len @ 1..) => self.kept.push(&bytes[..len]),
            Ok(0) | Err(_) => self.pipe = None,
        }
    }

    /// Reads until the end. Cancel safe.
    pub(super) async fn read_to_end(&mut self) {
        while self.is_open() {
            self.read().await;
        }
    }
}

impl<R> From<Capture<R>> for HeadTail {
    fn from(capture: Capture<R>) -> Self {
        capture.kept
    }
}
