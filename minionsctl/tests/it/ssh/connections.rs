//! Connections over SSH to ports and sockets of the guest.

use super::guest::SshGuest;
use super::programs::noise;
use crate::shared::command::{Ran, Running};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::thread::JoinHandle;
use testkit::fake_vmm::{Behaviour, FakeVmm, forwarding_agent};
use testkit::wait::until;

/// Serves one connection: reads to the end, and answers with what was read.
fn echo<S: Read + Write>(mut stream: S) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
}

/// Returns a guest with the further VM `ports`, whose agent may connect.
async fn with_ports() -> (SshGuest, FakeVmm) {
    let ssh = SshGuest::start().await;
    let behaviour = Behaviour::Agent(forwarding_agent().unwrap());
    let vm = FakeVmm::start(ssh.guest.daemon.sockets(), "ports", behaviour).unwrap();
    ssh.guest.daemon.until_state("ports", "ready").await;
    (ssh, vm)
}

fn echo_server(connections: usize) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move || (0..connections).for_each(|_| echo(listener.accept().unwrap().0));
    (port, std::thread::spawn(serve))
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_and_output_are_a_connection_with_half_close() {
    let (ssh, _vm) = with_ports().await;
    let (port, server) = echo_server(1);
    let bytes = noise(1024 * 1024);
    let mut command = ssh.limited_ssh(&["-W", &format!("127.0.0.1:{port}"), "ports.minions"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), bytes.clone());
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success() && output.stdout == bytes);
    server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn local_ports_lead_to_ports_and_sockets_of_the_guest() {
    let (ssh, _vm) = with_ports().await;
    let (port, server) = echo_server(2);
    let socket = ssh.guest.file("service");
    let listener = UnixListener::bind(&socket).unwrap();
    let unix_server = std::thread::spawn(move || echo(listener.accept().unwrap().0));
    let [first, second] = [(); 2].map(|()| {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    });
    let (to_port, to_socket) =
        (format!("{first}:localhost:{port}"), format!("{second}:{}", socket.display()));
    let options = ["-o", "ExitOnForwardFailure=yes", "-L", &to_port, "-L", &to_socket];
    let mut command = ssh.ssh(&[&options[..], &["ports.minions", "echo up; cat"]].concat());
    let mut running = Running::start(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "up");
    for port in [first, first, second] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"over ssh").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "over ssh");
    }
    drop(running.child.stdin.take());
    running.end().assert(0, "", "");
    server.join().unwrap();
    unix_server.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_follow_the_end_of_the_other_direction_arrive() {
    let (ssh, _vm) = with_ports().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forward = format!("{port}:{target}");
    let mut command = ssh.ssh(&["-L", &forward, "ports.minions", "echo up; cat"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "up");
    let bytes = noise(1024 * 1024);
    for _ in 0..20 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        let sent = bytes.clone();
        // ssh closes the channel directly after the last byte.
        let sender = std::thread::spawn(move || client.write_all(&sent).unwrap());
        let mut received = Vec::new();
        server.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert!(received == bytes, "{} bytes arrived", received.len());
    }
    drop(running.child.stdin.take());
    running.end().assert(0, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_port_is_a_failed_connection_and_uses_no_channel() {
    let (ssh, _vm) = with_ports().await;
    let closed = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let target = format!("127.0.0.1:{closed}");
    let refused = Ran::of(&mut ssh.limited_ssh(&["-W", &target, "ports.minions"]));
    refused.assert(255, "", "connect failed").assert(255, "", "minionsctl: cannot connect to tcp:");
    // More than the channels of a connection.
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let forward = format!("{port}:{target}");
    let mut command = ssh.ssh(&["-L", &forward, "ports.minions", "echo up; cat"]);
    let mut running = Running::start(command.stdin(Stdio::piped()));
    assert_eq!(running.line(), "up");
    for _ in 0..70 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        // ssh closes or resets it.
        let _ = stream.read(&mut [0; 1]);
    }
    drop(running.child.stdin.take());
    let ran = running.end();
    ran.assert(0, "", "connect failed");
    assert!(!ran.stderr.contains("resource shortage"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_client_closes_its_connections() {
    let (ssh, _vm) = with_ports().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let mut command = ssh.ssh(&["-W", &target, "ports.minions"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    listener.set_nonblocking(true).unwrap();
    let (mut stream, _) = until("the guest connects", || listener.accept().ok());
    stream.set_nonblocking(false).unwrap();
    stream.write_all(b"x").unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 1]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    stream.set_nonblocking(true).unwrap();
    until("the connection is closed", || match (&stream).read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    });
}
