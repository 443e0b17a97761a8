//! Connection of the host, of any transport.

use tokio::io::{AsyncRead, AsyncWrite};

/// Stream of bytes in both directions.
pub(crate) trait HostStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> HostStream for S {}

/// Stream of any transport. One type for all of them: the code of a session would otherwise be in the agent's file once
/// for each transport. A call through the table of functions takes a few nanoseconds, the system call that follows
/// takes microseconds.
pub(crate) type BoxedStream<'a> = Box<dyn HostStream + 'a>;
