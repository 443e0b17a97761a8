//! Tests of calls to one agent whose connections the test serves.

use super::*;
use crate::agent::pool::tests::{DEADLINE, PoolOfVm};
use futures_util::FutureExt;
use minions_proto::message::{Exec, HealthCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Client of one agent, with the ends that its supervisor holds.
struct ClientOfVm {
    vm: PoolOfVm,
    client: AgentClient,
    access: watch::Sender<AgentStatus>,
    nudge: Arc<Notify>,
}

impl ClientOfVm {
    fn new(access: CallAccess) -> Self {
        let vm = PoolOfVm::new(2);
        let (access, status) = watch::channel(AgentStatus { access, info: None });
        let (nudge, calls) = (Arc::new(Notify::new()), Arc::new(CallOutcomes::new(3)));
        let client = AgentClient::new(vm.pool.clone(), status, Arc::clone(&nudge), calls);
        Self { vm, client, access, nudge }
    }

    /// Serves the connections of the pool, each with this number of replies, after which it reads one more request and
    /// closes. Returns the number of requests of each connection when the calls have ended.
    async fn serve(&self, replies: &[usize], calls: impl Future<Output = ()>) -> Vec<usize> {
        let mut requests = Vec::new();
        let served = async {
            for replies in replies {
                let mut stream = self.vm.accept().await;
                requests.push(0);
                while let Some(count) = requests.last_mut()
                    && read_request(&mut stream).await
                {
                    *count += 1;
                    if *count > *replies {
                        break;
                    }
                    stream.write_all(&reply()).await.unwrap();
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = calls => {}
            () = served => {}
        }
        requests
    }

    async fn health(&self, lane: Lane) -> bool {
        self.client.call(&HealthCheck {}, lane, Instant::now() + DEADLINE).await.is_ok()
    }
}

/// Returns the frame of a reply to both requests of these tests.
fn reply() -> Vec<u8> {
    let text =
        r#"{"status":"ok","uptime_secs":1,"hostname":"h","exit_code":0,"stdout":"","stderr":""}"#;
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

async fn read_request(stream: &mut UnixStream) -> bool {
    let Ok(len) = stream.read_u32().await else { return false };
    stream.read_exact(&mut vec![0; len as usize]).await.is_ok()
}

#[tokio::test]
async fn a_call_that_was_sent_is_repeated_once_if_it_is_idempotent_and_its_connection_was_reused() {
    let vm = ClientOfVm::new(CallAccess::Allowed);
    // The second call gets an idle connection, which the agent closes instead of a reply.
    let requests = vm.serve(&[1, 9], async {
        assert!(vm.health(Lane::Quick).await && vm.health(Lane::Quick).await);
    });
    assert_eq!(requests.await, [2, 1]);

    let vm = ClientOfVm::new(CallAccess::Allowed);
    let requests = vm.serve(&[1, 9], async {
        assert!(vm.health(Lane::Quick).await);
        let exec = Exec { command: "a".into(), args: Vec::new(), timeout_ms: None };
        let lost = vm.client.call(&exec, Lane::Quick, Instant::now() + DEADLINE).await;
        let is_lost =
            matches!(lost, Err(CallError::Transport(TransportError::Lost { sent: true })));
        assert!(is_lost, "{lost:?}");
    });
    assert_eq!(requests.await, [2], "the program was started again");

    let vm = ClientOfVm::new(CallAccess::Allowed);
    let requests = vm.serve(&[0, 0, 9], async { assert!(!vm.health(Lane::Quick).await) });
    assert_eq!(requests.await, [1], "a call on a new connection is not repeated");
}

#[tokio::test]
async fn only_a_background_call_closes_the_connection_that_it_dialled() {
    for (lane, idle) in [(Lane::Quick, 1), (Lane::Stream, 1), (Lane::Background, 0)] {
        let vm = ClientOfVm::new(CallAccess::Allowed);
        vm.serve(&[9], async { assert!(vm.health(lane).await) }).await;
        assert_eq!(vm.vm.pool.figures().idle, idle, "{lane:?}");
    }
}

#[tokio::test]
async fn a_call_waits_for_the_first_probe_and_is_refused_if_that_fails() {
    let vm = ClientOfVm::new(CallAccess::Undecided);
    let mut reachable = Box::pin(vm.client.reachable(Instant::now() + DEADLINE));
    assert!(reachable.as_mut().now_or_never().is_none(), "it does not wait");
    vm.access.send_modify(|status| status.access = CallAccess::Allowed);
    assert!(matches!(reachable.now_or_never(), Some(Ok(()))));

    let reason = RefusalReason { failure: Failure::NoAgent, message: "no agent".into() };
    vm.access.send_modify(|status| status.access = CallAccess::Refused(reason));
    let refused = vm.client.reachable(Instant::now() + DEADLINE).now_or_never();
    assert!(
        matches!(
            &refused,
            Some(Err(TransportError::Unreachable { failure: Failure::NoAgent, .. }))
        ),
        "{refused:?}"
    );
    assert!(vm.nudge.notified().now_or_never().is_some(), "the supervisor probes again");

    let ClientOfVm { client, access, .. } = vm;
    assert!(!client.is_gone());
    drop(access);
    assert!(client.is_gone());
}
