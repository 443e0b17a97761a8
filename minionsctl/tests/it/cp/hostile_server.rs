//! A server that answers like minionsd with a tree of a hostile guest.

use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// Answer to `GET /vms/{vm}/files`.
pub(super) struct HostileAnswer {
    /// Type of the file that the headers state.
    pub(super) kind: &'static str,
    /// Body: each part is sent as many times as its number says.
    pub(super) body: Vec<(Vec<u8>, u64)>,
    /// Length that the headers state; by default, that of the body.
    pub(super) length: Option<u64>,
    /// Line of standard error of the exec that serves the tree.
    pub(super) failures: Option<&'static str>,
}

impl HostileAnswer {
    /// Returns a tree with this stream.
    pub(super) fn tree(stream: Vec<u8>) -> Self {
        Self { kind: "directory", body: vec![(stream, 1)], length: None, failures: None }
    }
}

/// Starts a server that gives this answer to all requests for files, and returns its address.
pub(super) fn serve(answer: HostileAnswer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // The client closes the connection when it refuses the stream.
            let _ = reply(stream.unwrap(), &answer);
        }
    });
    host
}

fn reply(mut stream: TcpStream, answer: &HostileAnswer) -> std::io::Result<()> {
    let mut head = BufReader::new(stream.try_clone()?).lines();
    let request = head.next().unwrap_or_else(|| Ok(String::new()))?;
    for line in head {
        if line?.is_empty() {
            break;
        }
    }
    if request.contains("/execs/") {
        let line = format!("{}\n", answer.failures.unwrap_or_default());
        let event = json!({ "type": "stderr", "offset": 0, "data": line });
        let end = json!({ "type": "end" });
        let kind = "application/x-ndjson";
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{event}\n{end}\n"
        );
    }
    let exec = answer.failures.map_or("", |_| "x-minions-exec: e1\r\n");
    let total = answer.body.iter().map(|(part, times)| part.len() as u64 * times).sum();
    let length: u64 = answer.length.unwrap_or(total);
    let file = json!({
        "type": answer.kind, "size": 0, "mode": 0o755, "uid": 0, "gid": 0, "nlink": 1,
        "mtime_ns": 0, "etag": "x",
    });
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-tar\r\nx-minions-file: {file}\r\n\
         {exec}content-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    for (part, times) in &answer.body {
        for _ in 0..*times {
            stream.write_all(part)?;
        }
    }
    Ok(())
}
