//! Tests of the times at which a VM is probed and dialled whose VMM accepts connections but whose guest is silent.

use super::line::{ProbeAnswer, ProbeConnection, ProbeEvent};
use super::look_slot::LookRequest;
use crate::agent::{Connector, Dials, Permission, SocketId, VmSocket};
use crate::budget::MemoryBudget;
use crate::descriptors::Descriptors;
use crate::metrics::Meters;
use minions_api::vm::Failure;
use minions_proto::frame::Decoder;
use minions_proto::message::{ChangeNetwork, Health, NetworkChanged, encode_reply};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

/// Longest pause between two probes of a VM that does not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// VMM with one guest.
struct SilentVmm {
    connector: Connector,
    seen: Arc<SeenTraffic>,
    paused: watch::Sender<bool>,
    _dir: TempDir,
}

#[derive(Default)]
pub(super) struct SeenTraffic {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl SilentVmm {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web-1.vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let socket = VmSocket { id: SocketId::at(&path).unwrap(), path };
        let (descriptors, meters) = (Descriptors::of_process(), Arc::new(Meters::default()));
        let dials = Dials::new(4, TaskTracker::new(), descriptors, MemoryBudget::default(), meters);
        let (seen, paused) = (Arc::new(SeenTraffic::default()), watch::Sender::new(false));
        tokio::spawn(serve(listener, Arc::clone(&seen), paused.subscribe()));
        Self { connector: Connector::new(socket, dials), seen, paused, _dir: dir }
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }
}

pub(super) async fn serve(
    listener: UnixListener,
    seen: Arc<SeenTraffic>,
    paused: watch::Receiver<bool>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connection(stream, Arc::clone(&seen), paused.clone()));
    }
}

/// Serves one connection. As with real VMMs, input for a paused guest is accepted, and the guest answers when it
/// resumes.
async fn connection(
    mut stream: UnixStream,
    seen: Arc<SeenTraffic>,
    mut paused: watch::Receiver<bool>,
) -> Option<()> {
    let mut line = [0; b"CONNECT 1024\n".len()];
    stream.read_exact(&mut line).await.ok()?;
    paused.wait_for(|paused| !paused).await.ok()?;
    stream.write_all(b"OK 1\n").await.ok()?;
    let health = Health {
        uptime_secs: 1,
        hostname: "guest".into(),
        agent: None,
        time_unix_ms: None,
        quiesced: None,
        network_changes: None,
    };
    let health = encode_reply(&health).unwrap();
    let looked = encode_reply(&NetworkChanged::default()).unwrap();
    let (mut decoder, mut due) = (Decoder::new(), Vec::new());
    loop {
        while let Some(request) = decoder.next_frame().unwrap() {
            seen.requests.fetch_add(1, Ordering::SeqCst);
            let is_look = String::from_utf8_lossy(&request).contains("configure_network");
            due.extend_from_slice(if is_look { &looked } else { &health });
        }
        if !*paused.borrow_and_update() {
            stream.write_all(&std::mem::take(&mut due)).await.ok()?;
        }
        tokio::select! {
            read = stream.read_buf(decoder.read_buffer()) => if read.ok()? == 0 { return None },
            changed = paused.changed() => changed.ok()?,
        }
    }
}

/// Returns a probe connection on which the agent has answered once.
async fn connected(vmm: &SilentVmm) -> ProbeConnection {
    let mut line = ProbeConnection::default();
    line.probe();
    let heard = line.next(&vmm.connector).await;
    assert!(
        matches!(heard, ProbeEvent::Answered(ProbeAnswer { fresh: true, late: false, .. })),
        "{heard:?}"
    );
    line
}

/// Probes every five seconds until another connection is made, or until `most` has passed. Returns the elapsed time.
async fn silent_until_dialled(
    vmm: &SilentVmm,
    line: &mut ProbeConnection,
    most: Duration,
) -> Duration {
    let (begun, before) = (Instant::now(), vmm.connections());
    while vmm.connections() == before && begun.elapsed() < most {
        line.probe();
        let heard = line.next(&vmm.connector).await;
        let ProbeEvent::Failed(error, _) = heard else { panic!("{heard:?}") };
        assert_eq!(error.failure, Failure::AgentSilent);
        sleep(PAUSE).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_kept_and_its_late_answer_counts() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    vmm.paused.send_replace(true);
    let silent = silent_until_dialled(&vmm, &mut line, Duration::from_secs(20)).await;
    assert!(silent >= Duration::from_secs(20));
    assert_eq!(vmm.connections(), 1, "a VM that may be paused was dialled");
    vmm.paused.send_replace(false);
    let resumed = Instant::now();
    // Without a further probe, the outstanding reply is the answer.
    let heard = line.next(&vmm.connector).await;
    assert!(
        matches!(heard, ProbeEvent::Answered(ProbeAnswer { late: true, fresh: false, .. })),
        "{heard:?}"
    );
    assert!(resumed.elapsed() < Duration::from_secs(1), "{:?}", resumed.elapsed());
    line.probe();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Answered(ProbeAnswer { late: false, .. })), "{heard:?}");
    assert_eq!(vmm.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_for_drift_uses_the_connection_of_the_probes_and_its_late_answer_is_ignored() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    let look = LookRequest::of(&ChangeNetwork::default()).unwrap();
    assert_eq!(line.look(&look).await, Some(NetworkChanged::default()));
    vmm.paused.send_replace(true);
    assert_eq!(line.look(&look).await, None);
    assert_eq!(line.look(&look).await, None, "one look at a time");
    assert!(matches!(line.permission(), Permission::Asked), "the VM may be paused");
    line.probe();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    sleep(PAUSE).await;
    vmm.paused.send_replace(false);
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Answered(ProbeAnswer { late: true, .. })), "{heard:?}");
    assert_eq!((vmm.connections(), vmm.requests()), (1, 4));
    assert_eq!(line.look(&look).await, Some(NetworkChanged::default()));
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_stays_silent_for_half_a_minute_is_dialled_again() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    vmm.paused.send_replace(true);
    let most = Duration::from_secs(120);
    let silent = silent_until_dialled(&vmm, &mut line, most).await;
    assert!(silent >= Duration::from_secs(30) && silent < Duration::from_secs(60), "{silent:?}");
    assert_eq!(vmm.connections(), 2);
    // The dial is also unanswered, so the next one follows half a minute later.
    let silent = silent_until_dialled(&vmm, &mut line, most).await;
    assert!(silent >= Duration::from_secs(20) && silent < Duration::from_secs(60), "{silent:?}");
    vmm.paused.send_replace(false);
    assert!(matches!(line.next(&vmm.connector).await, ProbeEvent::Answered(_)));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_outstanding_health_checks_is_bounded() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    vmm.paused.send_replace(true);
    let before = vmm.requests();
    for _ in 0..100 {
        line.probe();
        let heard = line.next(&vmm.connector).await;
        assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    }
    let outstanding = vmm.requests() - before;
    assert!((2..=32).contains(&outstanding), "{outstanding} health checks");
    vmm.paused.send_replace(false);
    // All of them are answered, and no reply is matched to a later health check.
    for _ in 0..3 {
        let heard = line.next(&vmm.connector).await;
        assert!(matches!(heard, ProbeEvent::Answered(_)), "{heard:?}");
        line.probe();
    }
}

#[tokio::test(start_paused = true)]
async fn a_verification_probes_an_open_connection_before_it_dials() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    vmm.paused.send_replace(true);
    line.verify();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    assert_eq!(vmm.connections(), 1, "a VM that may be paused was dialled");
    vmm.paused.send_replace(false);
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Answered(ProbeAnswer { fresh: true, .. })), "{heard:?}");
    assert_eq!(vmm.connections(), 2, "only an answer on a new connection counts");
}

#[tokio::test(start_paused = true)]
async fn an_announcement_causes_a_dial_although_another_one_is_unanswered() {
    let vmm = SilentVmm::start();
    vmm.paused.send_replace(true);
    let mut line = ProbeConnection::default();
    for _ in 0..2 {
        line.probe();
        let heard = line.next(&vmm.connector).await;
        assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    }
    assert_eq!(vmm.connections(), 1);
    line.announced();
    vmm.paused.send_replace(false);
    let began = Instant::now();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Answered(ProbeAnswer { fresh: true, .. })), "{heard:?}");
    assert_eq!((vmm.connections(), began.elapsed()), (2, Duration::ZERO));
    assert!(line.take_connected().is_some() && line.take_connected().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_announcement_causes_a_dial_although_a_connection_is_silent() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    vmm.paused.send_replace(true);
    line.probe();
    // The answer may still come in time.
    line.announced();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    assert_eq!(vmm.connections(), 1);
    line.announced();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Failed(..)), "{heard:?}");
    assert_eq!(vmm.connections(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_on_an_idle_connection_causes_a_health_check() {
    let vmm = SilentVmm::start();
    let mut line = connected(&vmm).await;
    line.announced();
    let heard = line.next(&vmm.connector).await;
    assert!(matches!(heard, ProbeEvent::Answered(ProbeAnswer { fresh: false, .. })), "{heard:?}");
    assert_eq!((vmm.connections(), vmm.requests()), (1, 2));
}
