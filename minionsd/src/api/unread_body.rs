//! Bodies of requests that are answered before they were read completely.
//!
//! A client that still sends when the server closes the connection gets an error from its socket, and may report that
//! error instead of the answer. So the rest of such a body is read and dropped for a while (RFC 9112, 9.6).

use axum::body::Body;
use axum::http::Version;
use axum::http::header::EXPECT;
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Maximum time for which the rest of a body is read: enough for a client to receive the answer, and to stop sending.
const DRAIN: Duration = Duration::from_secs(5);

/// Returns the body of a request. If it is dropped before its end, the rest is read in a task of its own. With HTTP/2,
/// the server tells the client to stop sending, and the connection continues.
pub(super) fn drained(incoming: Incoming, head: &Parts) -> Body {
    if incoming.is_end_stream() {
        return Body::empty();
    }
    if head.version == Version::HTTP_2 {
        return Body::new(incoming);
    }
    Body::new(DrainedBody { rest: Some(incoming), is_sent: !head.headers.contains_key(EXPECT) })
}

/// Body whose rest is read after the drop.
#[derive(Debug)]
struct DrainedBody {
    /// `None` after the end, or after an error.
    rest: Option<Incoming>,
    /// False while the client waits for a permission to send the body (`Expect: 100-continue`), which reading would
    /// give.
    is_sent: bool,
}

impl HttpBody for DrainedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.is_sent = true;
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(rest).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.rest = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for DrainedBody {
    fn drop(&mut self) {
        let rest = self.rest.take().filter(|rest| self.is_sent && !rest.is_end_stream());
        // Without a runtime, the daemon is at its end, and all connections with it.
        if let (Some(rest), Ok(runtime)) = (rest, Handle::try_current()) {
            runtime.spawn(timeout(DRAIN, drain(rest)));
        }
    }
}

async fn drain(mut rest: Incoming) {
    while let Some(Ok(_)) = rest.frame().await {}
}
