//! Tests of callers that go away at any moment: the VMM must never be left with an incomplete CONNECT line, and the
//! next caller must receive its own reply.

use super::calls::CallOutcomes;
use super::client::AgentClient;
use super::connector::{Connector, Dials};
use super::pool::{Lane, Pool};
use super::status::{AgentStatus, CallAccess};
use super::vm_socket::{SocketId, VmSocket};
use crate::budget::MemoryBudget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use minions_proto::frame::Decoder;
use minions_proto::message::Exec;
use proptest::prelude::*;
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

const DEADLINE: Duration = Duration::from_secs(20);

/// Connections that the VMM accepted, and those that closed before a whole CONNECT line.
#[derive(Debug, Default)]
struct SeenConnections {
    half_connects: AtomicUsize,
    connections: AtomicUsize,
}

/// Runs a VMM with an agent whose programs print their own name. Both send everything in pieces of `piece` bytes.
async fn vmm(listener: UnixListener, piece: usize, saw: Arc<SeenConnections>) {
    while let Ok((stream, _)) = listener.accept().await {
        saw.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(serve(stream, piece, Arc::clone(&saw)));
    }
}

async fn serve(mut stream: UnixStream, piece: usize, saw: Arc<SeenConnections>) -> Option<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.ok()? == 0 {
            saw.half_connects.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        line.push(byte[0]);
    }
    assert_eq!(line, b"CONNECT 1024\n");
    in_pieces(&mut stream, b"OK 7\n", piece).await?;
    let mut decoder = Decoder::new();
    loop {
        while let Some(request) = decoder.next_frame().unwrap() {
            let request: serde_json::Value = serde_json::from_slice(&request).unwrap();
            let name = &request["command"];
            let reply = serde_json::json!({
                "status": "ok", "exit_code": 0, "stdout": name, "stderr": "",
            });
            let reply = reply.to_string();
            let prefix = u32::try_from(reply.len()).unwrap().to_be_bytes();
            in_pieces(&mut stream, &[&prefix[..], reply.as_bytes()].concat(), piece).await?;
        }
        if stream.read_buf(decoder.read_buffer()).await.ok()? == 0 {
            return None;
        }
    }
}

async fn in_pieces(stream: &mut UnixStream, bytes: &[u8], piece: usize) -> Option<()> {
    for piece in bytes.chunks(piece) {
        stream.write_all(piece).await.ok()?;
        yield_now().await;
    }
    Some(())
}

/// Future that polls the inner future at most the given number of times, and then returns `None`.
struct PollLimited<'a, F>(Pin<&'a mut F>, usize);

impl<F: Future> Future for PollLimited<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(left) = self.1.checked_sub(1) else { return Poll::Ready(None) };
        self.1 = left;
        let output = ready!(self.0.as_mut().poll(context));
        Poll::Ready(Some(output))
    }
}

pub(super) fn client(path: &Path) -> AgentClient {
    let socket = VmSocket { path: path.to_owned(), id: SocketId::at(path).unwrap() };
    let (descriptors, meters) = (Descriptors::of_process(), Arc::new(Meters::default()));
    let dials = Dials::new(4, TaskTracker::new(), descriptors, MemoryBudget::default(), meters);
    let pool = Pool::new(Connector::new(socket, dials), 4, Arc::default());
    let (publish, status) = watch::channel(AgentStatus { access: CallAccess::Allowed, info: None });
    // Keeps the channel open until the test ends: a closed channel means that the VM is gone.
    std::mem::forget(publish);
    AgentClient::new(pool, status, Arc::new(Notify::new()), Arc::new(CallOutcomes::new(3)))
}

fn named(name: &str) -> Exec {
    Exec { command: name.to_owned(), args: Vec::new(), timeout_ms: None }
}

async fn calls_cut_at(cuts: &[usize], piece: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web-1.vsock");
    let saw = Arc::new(SeenConnections::default());
    let vmm = tokio::spawn(vmm(UnixListener::bind(&path).unwrap(), piece, Arc::clone(&saw)));
    let client = client(&path);
    for (turn, cut) in cuts.iter().enumerate() {
        let deadline = Instant::now() + DEADLINE;
        let (first, second) = (named(&format!("cut-{turn}")), named(&format!("whole-{turn}")));
        {
            let call = pin!(client.call(&first, Lane::Long, deadline));
            if let Some(reply) = timeout(DEADLINE, PollLimited(call, *cut)).await.unwrap() {
                assert_eq!(reply.unwrap().stdout, first.command);
            }
        }
        let reply = client.call(&second, Lane::Long, deadline).await.unwrap();
        assert_eq!(reply.stdout, second.command, "another call's reply");
    }
    assert_eq!(saw.half_connects.load(Ordering::SeqCst), 0, "the VMM was left with half a CONNECT");
    assert!(saw.connections.load(Ordering::SeqCst) > 0);
    vmm.abort();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn after_a_call_is_cancelled_the_next_one_gets_its_own_reply(
        cuts in proptest::collection::vec(0_usize..40, 1..6),
        piece in 1_usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(calls_cut_at(&cuts, piece));
    }
}

#[tokio::test]
async fn a_call_can_be_cancelled_at_every_poll() {
    calls_cut_at(&(0..60).collect::<Vec<_>>(), 1).await;
}
