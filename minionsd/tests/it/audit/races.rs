//! Clients that leave immediately after their request.

use super::program::{Program, become_other, request};
use super::touch;
use crate::callers::{OTHER, ROOT};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Ways in which a client leaves immediately after its request.
const WAYS_OUT: [fn(TcpStream); 4] = [
    drop,
    |stream| rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
    |stream| stream.shutdown(Shutdown::Both).unwrap_or_default(),
    |stream| stream.shutdown(Shutdown::Write).unwrap_or_default(),
];

/// Number of requests for which the daemon must have determined the caller.
const TIMES: u64 = 200;

/// The kernel shows the sockets that such a client leaves as root's.
#[tokio::test]
async fn a_client_that_leaves_at_once_is_never_taken_for_root() {
    // The attack is possible only where a uid authorizes.
    let program = Program::with("tcp_operate = 'uid'").await;
    let (address, marker) = (program.address().to_owned(), program.path("marker"));
    let body = touch(&marker);
    let enough = Arc::new(AtomicBool::new(false));
    let until = Arc::clone(&enough);
    let leaving = std::thread::spawn(move || {
        become_other();
        assert!(whoami(&address).contains(&OTHER.uid.to_string()));
        while !until.load(Ordering::SeqCst) {
            send_and_leave(&address, &body);
        }
    });
    // A close may overtake its request, which is then never read: count only those that were read.
    let asked = |program: &Program| {
        let lines = program.lines().into_iter();
        let counts = lines.map(|line| line["fields"]["count"].as_u64().unwrap());
        (counts.sum::<u64>() >= TIMES).then_some(())
    };
    program.until("enough requests are counted", asked).await;
    enough.store(true, Ordering::SeqCst);
    leaving.join().unwrap();
    // Connections are accepted in order, so the earlier ones are at least being served.
    assert_eq!(program.ask("last", OTHER, "GET", "/whoami", &[]).await, 200);
    program
        .until("all connections are closed", |program| (program.connections() == 0).then_some(()))
        .await;
    for line in program.lines() {
        let fields = &line["fields"];
        assert!(fields["uid"].is_null() || fields["uid"] == OTHER.uid, "{line}");
        assert_eq!(fields["allowed"], false, "{line}");
        assert!([json!(401), json!(403), Value::Null].contains(&fields["status"]), "{line}");
    }
    assert!(!marker.exists());
    // The same request by root is executed.
    let body = ["--json", &touch(&marker)];
    assert_eq!(program.ask("root", ROOT, "POST", "/vms/web-1/exec", &body).await, 200);
    assert!(marker.exists());
}

/// Leaves in every way, each with the request alone, and with a second request after it, which keeps the
/// daemon from noticing that the client is gone before it has handled the first one.
fn send_and_leave(address: &str, body: &str) {
    let more = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for leave in WAYS_OUT {
        for following in ["", more] {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .write_all(&[&request("left", None, body), following.as_bytes()].concat())
                .unwrap();
            leave(stream);
        }
    }
}

fn whoami(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /whoami HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
