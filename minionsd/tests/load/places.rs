//! Places for clients: a user who may only read cannot take up those of the operators.

use crate::callers::{GROUP, OTHER, TOKEN, User};
use minionsd::config::TokenFile;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use tempfile::NamedTempFile;
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

/// Limit of readers of `/events` of one kind.
const READERS: usize = 64;

/// Number of connections: more than there are places.
const CONNECTIONS: usize = 1_200;

/// Runs `work` on a thread with the credentials of `user`: the kernel assigns credentials to threads, and a
/// socket keeps those of its creation.
fn as_user<T: Send + 'static>(user: User, work: impl FnOnce() -> T + Send + 'static) -> T {
    let working = thread::spawn(move || {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
        work()
    });
    working.join().unwrap()
}

/// Opens connections as `user` and sends `request` on each of them.
fn connections(
    user: User,
    address: SocketAddr,
    count: usize,
    request: &'static str,
) -> Vec<TcpStream> {
    as_user(user, move || {
        let connect = || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            // A rejected connection is already closed.
            let _ = stream.write_all(request.as_bytes());
            stream
        };
        (0..count).map(|_| connect()).collect()
    })
}

/// Returns the status of the reply on a connection; `None` if it was closed without one.
fn status(mut stream: &TcpStream) -> Option<u16> {
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head[9..]).unwrap().parse().ok()
}

/// Daemon with a token and a VM, and a client for its Unix socket.
struct Target {
    daemon: TestDaemon,
    unix: reqwest::Client,
    _vm: FakeVmm,
    _token: NamedTempFile,
}

impl Target {
    async fn start() -> Self {
        crate::callers::must_be_root();
        minionsd::raise_descriptor_limit();
        let token = NamedTempFile::new().unwrap();
        fs::write(token.path(), TOKEN).unwrap();
        fs::set_permissions(token.path(), Permissions::from_mode(0o600)).unwrap();
        let daemon = TestDaemon::with(|config| {
            config.operator_group = GROUP.into();
            config.token_file = Some(TokenFile::Existing(token.path().to_owned()));
        })
        .await;
        let agent = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", agent).unwrap();
        daemon.until_state("web-1", "ready").await;
        let unix = testkit::daemon::http().unix_socket(daemon.unix_socket()).timeout(DEADLINE);
        Self { unix: unix.build().unwrap(), daemon, _vm: vm, _token: token }
    }

    /// Asserts that an operator can read events and run a program: over the Unix socket, and with the token
    /// over a new TCP connection.
    async fn assert_operators_are_served(&self) {
        let tcp = testkit::daemon::http().timeout(DEADLINE).build().unwrap();
        for (client, origin, token) in
            [(&self.unix, "http://localhost", None), (&tcp, &*self.daemon.url(""), Some(TOKEN))]
        {
            let with_token = |request: reqwest::RequestBuilder| match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            let events = with_token(client.get(format!("{origin}/events"))).send().await.unwrap();
            assert_eq!(events.status(), 200, "{origin}");
            let body = json!({ "command": "echo", "args": ["hi"] });
            let exec = client.post(format!("{origin}/vms/web-1/exec")).json(&body);
            let ran: Value = with_token(exec).send().await.unwrap().json().await.unwrap();
            assert_eq!(ran["stdout"], "hi\n", "{origin}: {ran}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_events_do_not_take_the_places_of_operators() {
    let target = Target::start().await;
    let request = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let readers = connections(OTHER, target.daemon.address, READERS, request);
    assert!(readers.iter().all(|reader| status(reader) == Some(200)));
    let surplus = connections(OTHER, target.daemon.address, 1, request);
    assert_eq!(status(&surplus[0]), Some(503));
    target.assert_operators_are_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_user_do_not_take_the_places_of_others() {
    let target = Target::start().await;
    let held = connections(OTHER, target.daemon.address, CONNECTIONS, "");
    target.assert_operators_are_served().await;
    // The connections are either still open and answer a request, or were rejected and closed.
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let served = held
        .iter()
        .filter(|stream| {
            (&**stream).write_all(ask.as_bytes()).is_ok() && status(stream) == Some(200)
        })
        .count();
    // Half of all places, a quarter, and the ones for /healthz and rejections.
    assert!((512..=768 + 4).contains(&served), "{served}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_upgrades_do_not_take_the_places_of_websockets() {
    let target = Target::start().await;
    let request = "GET /vms/web-1/exec HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let refused = connections(OTHER, target.daemon.address, READERS, request);
    assert!(refused.iter().all(|stream| status(stream) == Some(403)));
    target.assert_operators_are_served().await;
}
