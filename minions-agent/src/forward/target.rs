//! The connection to a target.

use super::error::ForwardError;
use super::policy::{ForwardPolicy, LOCALHOST};
use bytes::BufMut;
use minions_proto::message::ForwardTarget;
use rustix::io::Errno;
use std::io;
use std::net::SocketAddr;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::net::{tcp, unix};

/// Connected socket of a target.
#[derive(Debug)]
pub(crate) enum TargetSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Direction from the target to the host.
#[derive(Debug)]
pub(crate) enum TargetReader<'a> {
    Tcp(tcp::ReadHalf<'a>),
    Unix(unix::ReadHalf<'a>),
}

/// Direction from the host to the target.
#[derive(Debug)]
pub(crate) enum TargetWriter<'a> {
    Tcp(tcp::WriteHalf<'a>),
    Unix(unix::WriteHalf<'a>),
}

impl TargetSocket {
    /// Closes the connection so that the other side does not take what it has received for complete. A Unix socket has
    /// no reset, unless it holds data that was not read.
    pub(crate) fn reset(self) {
        if let Self::Tcp(socket) = self {
            // With a linger time of zero, closing sends a reset. Fails only if the connection is closed already.
            let _ = socket.set_zero_linger();
        }
    }

    /// Splits the socket into its two directions.
    pub(crate) fn split(&mut self) -> (TargetReader<'_>, TargetWriter<'_>) {
        match self {
            Self::Tcp(socket) => {
                let (read, write) = socket.split();
                (TargetReader::Tcp(read), TargetWriter::Tcp(write))
            }
            Self::Unix(socket) => {
                let (read, write) = socket.split();
                (TargetReader::Unix(read), TargetWriter::Unix(write))
            }
        }
    }
}

impl TargetReader<'_> {
    /// Waits until bytes, or the end of the bytes, can be read. Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
        }
    }

    /// Reads without waiting.
    pub(crate) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
        }
    }
}

impl TargetWriter<'_> {
    /// Writes all bytes. Not cancel safe.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.write_all(bytes).await,
            Self::Unix(socket) => socket.write_all(bytes).await,
        }
    }

    /// Tells the target that no more bytes follow.
    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown().await,
            Self::Unix(socket) => socket.shutdown().await,
        }
    }
}

/// Connects to the target. Returns the socket and the address that it is connected to.
pub(super) async fn dial(
    target: &ForwardTarget,
    policy: &ForwardPolicy,
) -> Result<(TargetSocket, String), ForwardError> {
    let forbidden = || ForwardError::Forbidden(target.clone());
    let addresses = match target {
        ForwardTarget::Unix(path) => {
            let socket = UnixStream::connect(path).await.map_err(failed(target))?;
            return Ok((TargetSocket::Unix(socket), path.clone()));
        }
        ForwardTarget::Address(ip, port) => {
            let address = SocketAddr::new(*ip, *port);
            policy.permits_address(address).then_some(vec![address]).ok_or_else(forbidden)?
        }
        ForwardTarget::Host(host, port) if host == "localhost" => {
            LOCALHOST.map(|ip| SocketAddr::new(ip, *port)).to_vec()
        }
        ForwardTarget::Host(host, port) if policy.permits_host(host, *port) => {
            let resolved = lookup_host((host.as_str(), *port)).await;
            resolved
                .map_err(|source| ForwardError::Resolve { target: target.clone(), source })?
                .collect()
        }
        ForwardTarget::Host(..) => return Err(forbidden()),
    };
    let mut error = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                // A small message must not wait for the ack of the previous one (Nagle). The call fails only if the
                // target has already closed the connection.
                let _ = socket.set_nodelay(true);
                return Ok((TargetSocket::Tcp(socket), address.to_string()));
            }
            // The error of the first address is reported.
            Err(refused) => _ = error.get_or_insert(refused),
        }
    }
    Err(failed(target)(error.unwrap_or_else(|| Errno::HOSTUNREACH.into())))
}

fn failed(target: &ForwardTarget) -> impl Fn(io::Error) -> ForwardError {
    |source| ForwardError::Connect { target: target.clone(), source }
}
