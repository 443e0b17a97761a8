//! The client's side of a forward as plain bytes, after `Upgrade: tcp`.

use crate::forward::{ClientReader, ClientWriter, ForwardInput};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use minions_proto::channel::CHUNK_LEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

type ClientStream = TokioIo<Upgraded>;

/// Reads the client's bytes.
pub(super) struct ByteReader {
    stream: ReadHalf<ClientStream>,
    buffer: BytesMut,
    ended: bool,
}

/// Writes the target's bytes to the client.
pub(super) struct ByteWriter(WriteHalf<ClientStream>);

/// Splits the client's connection.
pub(super) fn halves(upgraded: Upgraded) -> (ByteReader, ByteWriter) {
    let (read, write) = tokio::io::split(TokioIo::new(upgraded));
    (ByteReader { stream: read, buffer: BytesMut::new(), ended: false }, ByteWriter(write))
}

impl ClientReader for ByteReader {
    async fn next(&mut self) -> ForwardInput {
        if self.ended {
            // The client has half-closed its connection. If the connection is lost later, a write to it fails.
            return std::future::pending().await;
        }
        self.buffer.reserve(CHUNK_LEN);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => {
                self.ended = true;
                ForwardInput::End
            }
            Ok(_) => ForwardInput::Data(self.buffer.split().freeze()),
            Err(_) => ForwardInput::Gone,
        }
    }
}

impl ClientWriter for ByteWriter {
    async fn data(&mut self, bytes: Bytes) -> bool {
        self.0.write_all(&bytes).await.is_ok() && self.0.flush().await.is_ok()
    }

    async fn end(&mut self) -> bool {
        self.0.shutdown().await.is_ok()
    }
}
