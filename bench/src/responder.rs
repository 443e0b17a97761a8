//! A stand-in for an agent that costs next to nothing, so that only the caller is measured: one thread, any
//! number of hybrid-vsock sockets. A network change is answered with "nothing to change", and every other request with the
//! reply to a health check.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use anyhow::Context;
use minions_proto::{
    Call,
    frame::{Decoder, EncodeError},
    handshake::connect_line,
    message::{AgentInfo, ChangeNetwork, Health, NetworkChanged, encode_reply},
    version::AGENT_PORT,
};
use rustix::event::epoll;

const GRANT: &[u8] = b"OK 1024\n";

/// Number of events handled per wait.
const EVENTS: usize = 64;

/// Returns the reply of a current agent as one frame. It contains `instance_id`: parsing it is part of the
/// measured work.
pub(crate) fn health_reply() -> Result<Vec<u8>, EncodeError> {
    let features = ["exec2", "network2", "clock", "power"].map(str::to_owned);
    encode_reply(&Health {
        uptime_secs: 17,
        hostname: "cloud-hypervisor".into(),
        agent: Some(AgentInfo {
            name: "minions-agent".into(),
            version: "0.1.0".into(),
            protocol: 2,
            features: Vec::from(features).into(),
            boot_id: "0a2f3c1e-7a59-4f0a-9d0e-2a1d8b9c4e5f".into(),
            instance_id: "5e4c9b8d1a2e0d9fa4059a7e1c3f2a0a".into(),
            allowed: None,
            generation: None,
            parent_instance_id: None,
            probe_count: None,
            restore: None,
        }),
        // With a time, the daemon would set the clock, again and again.
        time_unix_ms: None,
        quiesced: None,
        network_changes: None,
    })
}

/// Returns the reply to a change of a network that is as requested already, as one frame.
fn network_reply() -> Result<Vec<u8>, EncodeError> {
    encode_reply(&NetworkChanged {
        message: "network configured".into(),
        changed: Some(false),
        ..NetworkChanged::default()
    })
}

/// Replies to all requests.
#[derive(Debug)]
struct ResponderReplies {
    health: Vec<u8>,
    network: Vec<u8>,
}

impl ResponderReplies {
    /// Returns the reply to a request, found by its type: parsing would be a part of the measured time.
    fn to(&self, request: &[u8]) -> &[u8] {
        let change = ChangeNetwork::TYPE.as_bytes();
        // The type is the first member of the object.
        let head = &request[..request.len().min(64)];
        if head.windows(change.len()).any(|part| part == change) {
            &self.network
        } else {
            &self.health
        }
    }
}

/// Connection of a client.
#[derive(Debug)]
struct ResponderClient {
    stream: UnixStream,
    state: ClientState,
}

/// Progress of a connection.
#[derive(Debug)]
enum ClientState {
    /// The bytes of the CONNECT line received so far.
    Connecting(Vec<u8>),
    Granted(Decoder),
}

/// Serves the sockets `vm-1.vsock` to `vm-<count>.vsock` in `dir` until the process is killed.
///
/// # Errors
///
/// A socket cannot be bound, or epoll fails.
pub(crate) fn run(dir: &Path, count: u32) -> anyhow::Result<()> {
    let epoll =
        epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot create an epoll instance")?;
    let mut listeners = HashMap::new();
    for number in 1..=count {
        let path = dir.join(format!("vm-{number}.vsock"));
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        listener.set_nonblocking(true)?;
        watch(&epoll, &listener)?;
        listeners.insert(key(&listener), listener);
    }
    let replies = ResponderReplies {
        health: health_reply().context("cannot encode the reply")?,
        network: network_reply().context("cannot encode the reply")?,
    };
    let mut clients: HashMap<u64, ResponderClient> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let key = event.data.u64();
            if let Some(listener) = listeners.get(&key) {
                accept(&epoll, listener, &mut clients);
            } else if let Some(client) = clients.get_mut(&key)
                && !client.answer(&replies).unwrap_or(false)
            {
                // Closing the stream also removes it from the epoll instance.
                clients.remove(&key);
            }
        }
    }
}

/// Accepts one connection. Failures are ignored: the client may have left already, or descriptors may be used
/// up.
fn accept(epoll: impl AsFd, listener: &UnixListener, clients: &mut HashMap<u64, ResponderClient>) {
    let Ok((stream, _)) = listener.accept() else { return };
    if stream.set_nonblocking(true).is_ok() && watch(epoll, &stream).is_ok() {
        let client = ResponderClient::new(stream);
        clients.insert(key(&client.stream), client);
    }
}

fn watch(epoll: impl AsFd, source: &(impl AsFd + AsRawFd)) -> io::Result<()> {
    let data = epoll::EventData::new_u64(key(source));
    epoll::add(epoll, source, data, epoll::EventFlags::IN).map_err(Into::into)
}

fn key(source: &impl AsRawFd) -> u64 {
    u64::from(source.as_raw_fd().unsigned_abs())
}

impl ResponderClient {
    fn new(stream: UnixStream) -> Self {
        Self { stream, state: ClientState::Connecting(Vec::new()) }
    }

    /// Answers the requests that have arrived; returns false when the host has closed the connection.
    fn answer(&mut self, replies: &ResponderReplies) -> anyhow::Result<bool> {
        let mut chunk = [0; 4096];
        let read = match self.stream.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        match &mut self.state {
            // A host sends nothing after its line until it is granted.
            ClientState::Connecting(line) => {
                line.extend_from_slice(&chunk[..read]);
                if *line == connect_line(AGENT_PORT).as_bytes() {
                    self.stream.write_all(GRANT)?;
                    self.state = ClientState::Granted(Decoder::new());
                }
            }
            ClientState::Granted(decoder) => {
                decoder.extend(&chunk[..read]);
                while let Some(request) = decoder.next_frame()? {
                    self.stream.write_all(replies.to(&request))?;
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use minions_proto::message::{HealthCheck, decode_reply, encode_request};

    use super::*;

    fn replies() -> ResponderReplies {
        ResponderReplies { health: b"health".into(), network: b"network".into() }
    }

    #[test]
    fn a_client_is_answered_however_its_bytes_are_split() {
        let (mut host, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut client = ResponderClient::new(stream);
        let health = encode_request(&HealthCheck {}).unwrap();
        let network = encode_request(&ChangeNetwork::default()).unwrap();
        let bytes = [connect_line(AGENT_PORT).as_bytes(), &health, &network, &health].concat();
        for byte in bytes {
            host.write_all(&[byte]).unwrap();
            assert!(client.answer(&replies()).unwrap());
        }
        drop(client);
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "OK 1024\nhealthnetworkhealth");
    }

    #[test]
    fn the_reply_is_that_of_a_healthy_agent() {
        let mut decoder = Decoder::new();
        decoder.extend(&health_reply().unwrap());
        let payload = decoder.next_frame().unwrap().unwrap();
        let health: Health = decode_reply(&payload).unwrap();
        assert_eq!(health.hostname, "cloud-hypervisor");
    }

    #[test]
    fn a_closed_connection_is_reported() {
        let (host, stream) = UnixStream::pair().unwrap();
        drop(host);
        let mut client = ResponderClient::new(stream);
        assert!(!client.answer(&replies()).unwrap());
    }
}
