//! Body of a request whose bytes another thread produces.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Number of chunks between the producer and the connection.
const CHUNKS: usize = 8;

/// Last chunk of a body.
pub(crate) const END: Bytes = Bytes::new();

/// Sender of the bytes of a body, and then of [`END`]. An error, or dropping the sender before the end, aborts the
/// request, so that the receiver does not treat the body as complete.
pub(crate) type UploadSender = mpsc::Sender<io::Result<Bytes>>;

/// Body of a request, and the number of its chunks that the connection has taken.
#[derive(Debug)]
pub(crate) struct UploadBody {
    pub(super) body: reqwest::Body,
    pub(super) taken: Arc<AtomicU64>,
}

/// Returns a body, and the sender of its bytes.
pub(crate) fn upload_body() -> (UploadSender, UploadBody) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let taken = Arc::new(AtomicU64::new(0));
    let body = reqwest::Body::wrap(ChannelBody { chunks, taken: Arc::clone(&taken) });
    (sender, UploadBody { body, taken })
}

#[derive(Debug)]
struct ChannelBody {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    taken: Arc<AtomicU64>,
}

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.chunks.poll_recv(context);
        if next.is_ready() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        next.map(|next| match next {
            Some(Ok(bytes)) if bytes.is_empty() => None,
            Some(bytes) => Some(bytes.map(Frame::data)),
            None => Some(Err(io::Error::other("the source broke off"))),
        })
    }
}
