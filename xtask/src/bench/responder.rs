//! A stand-in for an agent that costs next to nothing, so that only the caller is measured: one thread, any
//! number of hybrid-vsock sockets, the same answer to every request.

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
use rustix::event::epoll;

/// Reply of a current agent, including `instance_id`: parsing it is part of the measured work.
pub(crate) const REPLY: &str = concat!(
    r#"{"status":"ok","uptime_secs":17,"hostname":"cloud-hypervisor","agent":{"name":"#,
    r#""minions-agent","version":"0.1.0","protocol":2,"features":["exec2","status2","network2","#,
    r#""clock","power"],"boot_id":"0a2f3c1e-7a59-4f0a-9d0e-2a1d8b9c4e5f","instance_id":"#,
    r#""5e4c9b8d1a2e0d9fa4059a7e1c3f2a0a"},"time_unix_ms":1764033600000}"#
);

const CONNECT: &[u8] = b"CONNECT 1024\n";
const GRANT: &[u8] = b"OK 1024\n";

/// Number of events handled per wait.
const EVENTS: usize = 64;

/// Connection of a client, and the bytes of a request received so far.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
    is_granted: bool,
}

/// Serves the sockets `vm-1.vsock` to `vm-<count>.vsock` in `dir` until the process is killed.
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
    let reply = framed(REPLY.as_bytes());
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut events = Vec::with_capacity(EVENTS);
    loop {
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let key = event.data.u64();
            if let Some(listener) = listeners.get(&key) {
                accept(&epoll, listener, &mut clients);
            } else if let Some(client) = clients.get_mut(&key)
                && !client.answer(&reply).unwrap_or(false)
            {
                // Closing the stream also removes it from the epoll instance.
                clients.remove(&key);
            }
        }
    }
}

/// Accepts one connection. Failures are ignored: the client may have left already, or descriptors may be used
/// up.
fn accept(epoll: impl AsFd, listener: &UnixListener, clients: &mut HashMap<u64, Client>) {
    let Ok((stream, _)) = listener.accept() else { return };
    if stream.set_nonblocking(true).is_ok() && watch(epoll, &stream).is_ok() {
        let client = Client { stream, pending: Vec::new(), is_granted: false };
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

impl Client {
    /// Answers the requests that have arrived; returns false when the host has closed the connection.
    fn answer(&mut self, reply: &[u8]) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        let read = match self.stream.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        self.pending.extend_from_slice(&chunk[..read]);
        if !self.is_granted && self.pending.starts_with(CONNECT) {
            self.is_granted = true;
            self.pending.drain(..CONNECT.len());
            self.stream.write_all(GRANT)?;
        }
        while self.is_granted
            && let Some(len) = frame_len(&self.pending)
        {
            self.pending.drain(..len);
            self.stream.write_all(reply)?;
        }
        Ok(true)
    }
}

/// Returns the length of the first frame including its prefix, if it is complete.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let prefix = bytes.first_chunk::<4>()?;
    let len = 4 + usize::try_from(u32::from_be_bytes(*prefix)).ok()?;
    (bytes.len() >= len).then_some(len)
}

/// Encodes `payload` as a frame of the wire protocol.
pub(crate) fn framed(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    [&len.to_be_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_answered_however_its_bytes_are_split() {
        let (mut host, stream) = UnixStream::pair().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut client = Client { stream, pending: Vec::new(), is_granted: false };
        let request = framed(br#"{"type":"health_check"}"#);
        let bytes = [CONNECT, &request, &request].concat();
        for byte in bytes {
            host.write_all(&[byte]).unwrap();
            assert!(client.answer(b"reply").unwrap());
        }
        drop(client);
        let mut received = String::new();
        host.read_to_string(&mut received).unwrap();
        assert_eq!(received, "OK 1024\nreplyreply");
    }

    #[test]
    fn a_closed_connection_is_reported() {
        let (host, stream) = UnixStream::pair().unwrap();
        drop(host);
        let mut client = Client { stream, pending: Vec::new(), is_granted: false };
        assert!(!client.answer(b"").unwrap());
    }
}
