//! An attacker's web server: it serves the page with the attacks, and receives its report. All other requests
//! are relayed to the daemon, as under a name that was rebound to it.

use super::DEADLINE;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const ATTACKS: &str = include_str!("attacks.html");

pub(crate) struct Pages {
    pub(crate) address: SocketAddr,
    reports: mpsc::Receiver<Value>,
    task: JoinHandle<()>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pages {
    pub(crate) async fn start(daemon: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, reports) = mpsc::channel(8);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, daemon, reporter.clone()));
            }
        });
        Self { address, reports, task }
    }

    /// Waits for the report of the page about its attacks.
    pub(crate) async fn report(&mut self) -> Value {
        let report = timeout(DEADLINE, self.reports.recv()).await;
        report.expect("the page reports").unwrap()
    }
}

async fn serve(
    mut stream: TcpStream,
    daemon: SocketAddr,
    reporter: mpsc::Sender<Value>,
) -> io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            break String::from_utf8_lossy(&request[..end]).into_owned();
        }
    };
    if head.starts_with("GET /attacks") {
        return answer(&mut stream, ATTACKS).await;
    }
    if head.starts_with("POST /report") {
        let body = loop {
            let body = &request[head.len() + 4..];
            if let Ok(report) = serde_json::from_slice(body) {
                break report;
            }
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        };
        let _ = reporter.send(body).await;
        return answer(&mut stream, "").await;
    }
    let mut daemon = TcpStream::connect(daemon).await?;
    daemon.write_all(&request).await?;
    copy_bidirectional(&mut stream, &mut daemon).await.map(drop)
}

async fn answer(stream: &mut TcpStream, page: &str) -> io::Result<()> {
    let length = page.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(page.as_bytes()).await
}
