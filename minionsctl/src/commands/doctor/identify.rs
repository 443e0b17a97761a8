//! Identifies the service on an agent's port, if it answers no health check, by requests of other protocols.
//!
//! Used only if no agent has ever answered there: otherwise the agent hangs or its guest is paused, and a dial to a
//! paused guest breaks the vsock device of some VMMs. Works only on the host of the socket.

use crate::agent::connect;
use crate::agent_address::AgentAddress;
use crate::client::DaemonClient;
use minions_api::vm::Vm;
use minions_proto::AgentPort;
use minions_proto::foreign_service::{ForeignService, LOOKED_AT};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Deadline for an answer. A service in a guest takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(1);

/// First bytes of an HTTP/2 client (RFC 9113, section 3.4): the preface and empty SETTINGS. HTTP/1 servers answer
/// the preface too, because it has the form of a request.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// TTRPC request for a method that no service has: header, then `service` and `method` as protobuf.
const TTRPC: &[u8] = b"\0\0\0\x13\0\0\0\x01\x01\0\x0a\x07minions\x12\x08Identify";

/// Service that listens on an agent's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProbedService {
    /// Service whose first bytes identify another protocol.
    Foreign(ForeignService),
    /// Service that accepts connections and sends nothing.
    Silent,
}

/// Identifies the service. Returns `None` if this host cannot, or if the service may be an agent.
pub(super) async fn identify(client: &DaemonClient, known: &Vm) -> Option<ProbedService> {
    let address = address(client, known)?;
    let mut silent = false;
    for question in [HTTP2, TTRPC] {
        let answer = ask(&address, question).await?;
        match ForeignService::recognise(&answer) {
            Some(service) => return Some(ProbedService::Foreign(service)),
            None if answer.is_empty() => silent = true,
            None => return None,
        }
    }
    silent.then_some(ProbedService::Silent)
}

/// Returns the agent's address if the socket on this host is the one that minionsd uses.
fn address(client: &DaemonClient, known: &Vm) -> Option<AgentAddress> {
    if known.last_seen.is_some() || !client.is_on_this_host() {
        return None;
    }
    let metadata = fs::metadata(&known.socket).ok()?;
    let same =
        (metadata.dev(), metadata.ino()) == (known.incarnation.device, known.incarnation.inode);
    let port = AgentPort::try_from(i64::from(known.agent_port)).ok()?;
    same.then(|| AgentAddress { socket: known.socket.clone().into(), port })
}

/// Sends `question` and returns the first bytes of the answer, at most [`LOOKED_AT`]. Returns `None` if connecting
/// fails.
async fn ask(address: &AgentAddress, question: &[u8]) -> Option<Vec<u8>> {
    let mut stream = connect(address).await.ok()?;
    let mut answer = vec![0; LOOKED_AT];
    let mut len = 0;
    let exchange = async {
        // A service that sends first may have closed the connection already; its bytes can still be read.
        let _ = stream.write_all(question).await;
        while let Ok(read @ 1..) = stream.read(&mut answer[len..]).await {
            len += read;
        }
    };
    // Bytes received before the deadline are used.
    let _ = timeout(DEADLINE, exchange).await;
    answer.truncate(len);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_in_the_ttrpc_request_are_correct() {
        let (header, payload) = TTRPC.split_at(10);
        assert_eq!(usize::from(header[3]), payload.len());
        assert_eq!(usize::from(payload[1]), b"minions".len());
        assert_eq!(usize::from(payload[10]), b"Identify".len());
    }
}
