//! Body of a request whose bytes another thread produces.

use bytes::Bytes;
use http_body::{Body, Frame};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Number of chunks between the producer and the connection.
const CHUNKS: usize = 8;

/// Sender of the bytes of a body. An error aborts the request, so that the receiver does not treat the body as complete;
/// dropping the sender ends the body.
pub(crate) type UploadSender = mpsc::Sender<io::Result<Bytes>>;

/// Returns a body, and the sender of its bytes.
pub(crate) fn upload_body() -> (UploadSender, reqwest::Body) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    (sender, reqwest::Body::wrap(ChannelBody(receiver)))
}

#[derive(Debug)]
struct ChannelBody(mpsc::Receiver<io::Result<Bytes>>);

impl Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }
}
