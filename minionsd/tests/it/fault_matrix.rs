//! The fault matrix: one test for each row, named after the row.
//!
//! Rows that need a real kernel are tested with real VMs in the test program `vm`, among them a guest's full disk
//! and its clock. The faults here are those of a VMM, a socket directory, a client and the host.

use crate::faults::{Events, World, exec, guest};
use rustix::process::Signal;
use serde_json::json;
use std::cell::Cell;
use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::daemon::{DEADLINE, Reply, TestDaemon, read};
use testkit::fake_vmm::{
    Behaviour, BreachCounts, Dialect, FakeVmm, Guest, HandshakeCounter, Manner, agent,
};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async as until;
use testkit::wire::framed;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Timeout of calls that must end before it, in milliseconds.
pub(crate) const LONG: u64 = 60_000;

/// Time limit for an immediate effect, or for a deadline of less than a second, on a busy machine; shorter
/// than the intervals after which the daemon would act anyway.
pub(crate) const IN_TIME: Duration = Duration::from_secs(4);

#[tokio::test]
async fn guest_reset_during_a_request_504_at_the_deadline_pool_flushed_vm_rebooted() {
    let world = World::new().await;
    let mut events = Events::of(&world.daemon).await;
    // Idle connections in the pool, which the reset leaves silent: more than the calls below take.
    world.guest.behave(Manner::Slow(Duration::from_millis(100)));
    until("the pool has idle connections", async || {
        let call = || world.daemon.get("/vms/web-1/status");
        tokio::join!(call(), call(), call(), call(), call(), call());
        world.daemon.get("/vms/web-1").await.json["pool"]["idle"].as_u64() >= Some(4)
    })
    .await;
    let begun = Instant::now();
    let hasty = world.in_mid_exec(300, async || {
        world.guest.restart(2, true);
        world.guest.behave(Manner::Well);
    });
    let hasty = async {
        let call = hasty.await;
        (call, begun.elapsed())
    };
    // On a connection that stays silent, this call would wait for longer than the test.
    let patient = async {
        world.running(1).await;
        world.daemon.get("/vms/web-1/status?timeout_ms=60000").await
    };
    let ((call, waited), patient) = tokio::join!(hasty, patient);
    call.assert_problem(504, "agent_timeout");
    assert_eq!(call.json["may_have_executed"], true);
    assert!(waited >= Duration::from_millis(300) && waited < IN_TIME, "{waited:?}");
    // The pool is flushed: the call is repeated with the new guest, or fails if its connection was not a
    // reused one.
    assert!(matches!(patient.status, 200 | 502), "{patient:?}");
    events.until("vm.rebooted").await;
    for order in 2..6 {
        // First a call that would use an idle connection.
        assert_eq!(world.daemon.get("/vms/web-1/status").await.status, 200);
        assert_eq!(world.order(order, LONG).await.status, 200);
    }
    assert_eq!(world.ran(1), 1);
}

#[tokio::test]
async fn vmm_killed_502_at_once_stale_within_a_second() {
    let World { daemon, vm, guest, ledger } = World::new().await;
    guest.behave(Manner::Hangs);
    ledger.open(1, "web-1");
    let body = json!({ "command": "soak", "args": ["1"] });
    let idle = Guest::new("idle", Dialect::Objects, 1, Arc::default());
    let idle = FakeVmm::start(daemon.sockets(), "idle", Behaviour::Guest(idle)).unwrap();
    daemon.until_state("idle", "ready").await;
    let (call, killed) = tokio::join!(daemon.post("/vms/web-1/exec", body), async {
        until("the program runs", async || ledger.runs(1).unwrap().there == 1).await;
        let killed = Instant::now();
        vm.crash();
        // No call would report the end of this one.
        idle.crash();
        for name in ["web-1", "idle"] {
            daemon.until_state(name, "stale").await;
        }
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
        killed
    });
    assert!(killed.elapsed() < IN_TIME, "{:?}", killed.elapsed());
    call.assert_problem(502, "connection_lost");
    assert_eq!(call.json["may_have_executed"], true);
    daemon.get("/vms/web-1/health").await.assert_problem(503, "agent_unreachable");
}

#[tokio::test]
async fn socket_file_without_a_listener_stale_never_a_500_never_unlinked() {
    let daemon = TestDaemon::start().await;
    let path = daemon.sockets().join("web-1.vsock");
    drop(UnixListener::bind(&path).unwrap());
    let seen = daemon.until_state("web-1", "stale").await;
    assert_eq!(seen.json["reason"]["failure"], "no_listener");
    for resource in ["health", "status", "network"] {
        let call = daemon.get(&format!("/vms/web-1/{resource}")).await;
        call.assert_problem(503, "agent_unreachable");
    }
    daemon.exec("web-1", "true", &[]).await.assert_problem(503, "agent_unreachable");
    daemon.until("/vms/web-1", |vm| vm.json["failed_probes"].as_u64() >= Some(3)).await;
    assert!(path.exists());
}

#[tokio::test]
async fn backend_alive_vm_dead_unreachable_and_backoff() {
    let world = World::new().await;
    world.vm.switch_to(Behaviour::Refuses);
    let seen = world.daemon.until_state("web-1", "unreachable").await;
    assert_eq!(seen.json["reason"]["failure"], "no_agent");
    assert!(seen.json["failed_probes"].as_u64() >= Some(1));
    // Callers get an answer at once, and do not make the daemon dial more often than every 100 ms.
    let (begun, dialled) = (Instant::now(), world.vm.accepted());
    for _ in 0..200 {
        world.daemon.get("/vms/web-1/health").await.assert_problem(503, "agent_unreachable");
    }
    let most = begun.elapsed().as_millis() / 100 + 2;
    let dialled = (world.vm.accepted() - dialled) as u128;
    assert!(dialled <= most, "{dialled} dials, expected at most {most}");
    world.vm.switch_to(Behaviour::Guest(world.guest.clone()));
    world.daemon.until_state("web-1", "ready").await;
}

#[tokio::test]
async fn same_name_other_vm_pool_dropped_calls_in_flight_502_vm_replaced() {
    for dialect in [Dialect::Base, Dialect::Objects] {
        another_vm_of_the_same_name(World::speaking(dialect).await).await;
    }
}

async fn another_vm_of_the_same_name(world: World) {
    let mut events = Events::of(&world.daemon).await;
    let idle = || world.daemon.get("/vms/web-1/health");
    tokio::join!(idle(), idle(), idle());
    let spare = tempfile::tempdir_in(world.daemon.sockets()).unwrap();
    let successor = world.guest.successor(2);
    let behaviour = Behaviour::Guest(successor.clone());
    let new = FakeVmm::start_as(spare.path(), "web-1", behaviour, "vmm").unwrap();
    let replaced = Cell::new(Instant::now());
    let call = world
        .in_mid_exec(LONG, async || {
            replaced.set(Instant::now());
            fs::rename(new.path(), world.daemon.sockets().join("web-1.vsock")).unwrap();
        })
        .await;
    call.assert_problem(502, "connection_lost");
    assert!(replaced.get().elapsed() < IN_TIME, "{:?}", replaced.get().elapsed());
    events.until("vm.replaced").await;
    // The old VM would answer, if it were asked.
    world.guest.behave(Manner::Well);
    for order in 2..20 {
        assert_eq!(world.daemon.get("/vms/web-1/health").await.status, 200);
        let output = world.order(order, LONG).await.json["stdout"].clone();
        assert_eq!(output, format!("web-1 2 {order}\n"));
    }
    assert_eq!(world.ran(1), 1, "the program also ran in the other VM");
}

#[tokio::test]
async fn accepts_but_never_answers_504_breaker_after_3_other_vms_unaffected() {
    let world = World::new().await;
    let _other = world.bystander().await;
    world.guest.behave(Manner::Mute);
    let others = async {
        for _ in 0..100 {
            assert_eq!(world.daemon.get("/vms/other/health").await.status, 200);
        }
    };
    // Waits for as long as the calls to the other VM take.
    let endless = world.daemon.http.get(world.daemon.url("/vms/web-1/status?timeout_ms=60000"));
    let endless = tokio::spawn(endless.send());
    let calls = async {
        let mut waited = 0;
        loop {
            let begun = Instant::now();
            let call = world.daemon.get("/vms/web-1/health?timeout_ms=200").await;
            assert!(begun.elapsed() < IN_TIME, "{:?}", begun.elapsed());
            if call.status == 503 {
                call.assert_problem(503, "agent_unreachable");
                assert!(call.headers.contains_key("retry-after"));
                break waited;
            }
            call.assert_problem(504, "agent_timeout");
            waited += 1;
        }
    };
    let (waited, ()) = tokio::join!(calls, others);
    assert!(!endless.is_finished());
    endless.abort();
    assert!((1..=3).contains(&waited), "{waited} calls waited until their deadline");
    world.daemon.until_state("web-1", "unreachable").await;
}

#[tokio::test]
async fn one_byte_at_a_time_504_at_the_deadline_of_the_whole_frame() {
    let world = World::new().await;
    // The whole reply would take minutes, although each read of it is short.
    world.guest.behave(Manner::Dribbles(Duration::from_millis(150)));
    for resource in ["health", "status"] {
        let call = world.daemon.get(&format!("/vms/web-1/{resource}?timeout_ms=600")).await;
        call.assert_problem(504, "agent_timeout");
    }
    world.order(1, 600).await.assert_problem(504, "agent_timeout");
}

#[tokio::test]
async fn oversized_or_invalid_frame_protocol_error_connection_closed() {
    for manner in [Manner::Oversizes, Manner::Garbles] {
        let world = World::new().await;
        world.guest.behave(manner);
        let call = world.daemon.get("/vms/web-1/status").await;
        call.assert_problem(502, "agent_protocol_error");
        let exec = world.order(1, LONG).await;
        exec.assert_problem(502, "agent_protocol_error");
        assert_eq!((&exec.json["may_have_executed"], world.ran(1)), (&json!(true), 1));
        world.guest.behave(Manner::Well);
        world.daemon.until("/vms/web-1/status", |status| status.status == 200).await;
        let all_closed = |BreachCounts { made, closed }| made >= 2 && made == closed;
        until("all broken connections are closed", async || all_closed(world.guest.breaches()))
            .await;
    }
}

#[tokio::test]
async fn truncated_reply_502_and_is_never_used() {
    let world = World::new().await;
    world.guest.behave(Manner::Truncates);
    world.daemon.get("/vms/web-1/status").await.assert_problem(502, "connection_lost");
    world.guest.behave(Manner::Well);
    world.daemon.until("/vms/web-1/status", |status| status.status == 200).await;
    assert_eq!(world.order(1, LONG).await.status, 200);
    // The truncated frame contains a complete JSON reply.
    let mut health = framed(r#"{"status":"ok","uptime_secs":77,"hostname":"early"}"#);
    health[3] += 1;
    let behaviour = Behaviour::AnswersOnce(health);
    let _vm = FakeVmm::start(world.daemon.sockets(), "short", behaviour).unwrap();
    let seen = world.daemon.until_state("short", "unreachable").await;
    assert_eq!(seen.json["reason"]["failure"], "agent_closed");
    assert_eq!(seen.json["hostname"], json!(null), "the truncated reply was used");
}

#[tokio::test]
async fn two_replies_to_one_request_the_second_is_never_used() {
    // Without exec objects, whose streams would end the connections.
    let world = World::speaking(Dialect::Base).await;
    let (guest, mut order) = (&world.guest, 0);
    for manner in [Manner::Repeats, Manner::RepeatsLate] {
        // Calls of one kind, so that the second reply would be valid for the next call.
        for runs in [false, true] {
            let (answers, breaches) = (guest.answers(), guest.breaches());
            let mut ask = async || {
                order += 1;
                if runs { order_own(&world, order).await } else { status_own(&world).await }
            };
            guest.behave(manner);
            ask().await;
            if manner == Manner::RepeatsLate {
                let made = || guest.breaches().made - breaches.made;
                let given = || guest.answers() - answers + u64::from(runs);
                until("the second reply has arrived", async || u64::from(made()) == given()).await;
            }
            guest.behave(Manner::Well);
            for _ in 0..3 {
                assert_eq!(ask().await, 200, "{manner:?}");
            }
        }
    }
    let all_closed = |BreachCounts { made, closed }| made == closed;
    until("all connections with a second reply are closed", async || all_closed(guest.breaches()))
        .await;
}

/// Requests the status, and checks that the reply is a new one.
async fn status_own(world: &World) -> u16 {
    let before = world.guest.answers();
    let reply = world.daemon.get("/vms/web-1/status").await;
    if reply.status == 200 {
        assert!(reply.json["uptime_secs"].as_u64() > Some(before), "the reply is an earlier one");
    }
    reply.status
}

/// Runs a program, and checks that the output is its own.
async fn order_own(world: &World, order: u64) -> u16 {
    let reply = world.order(order, LONG).await;
    if reply.status == 200 {
        assert_eq!(reply.json["stdout"], format!("web-1 1 {order}\n"));
    } else if reply.json["may_have_executed"] == false {
        assert_eq!(world.ran(order), 0);
    }
    reply.status
}

#[tokio::test]
async fn a_reply_before_the_request_is_never_used() {
    let daemon = TestDaemon::start().await;
    let health = framed(r#"{"status":"ok","uptime_secs":77,"hostname":"early"}"#);
    let together = [b"OK 7\n".to_vec(), health.clone()].concat();
    for (name, behaviour) in [
        ("after", Behaviour::SpeaksFirst(health)),
        // In one write with the handshake: the reply is there before any request.
        ("together", Behaviour::Grants(together)),
    ] {
        let _vm = FakeVmm::start(daemon.sockets(), name, behaviour).unwrap();
        let seen = daemon.until_state(name, "unreachable").await;
        let failure = seen.json["reason"]["failure"].as_str().unwrap();
        assert!(matches!(failure, "agent_closed" | "protocol_error"), "{name}: {failure}");
        assert_eq!(seen.json["hostname"], json!(null), "{name}: the reply was used");
        let call = daemon.get(&format!("/vms/{name}/health")).await;
        call.assert_problem(503, "agent_unreachable");
    }
}

#[tokio::test]
async fn descriptors_exhausted_503_healthz_answers_recovers() {
    let daemon = Minionsd::builder().after_script("ulimit -n 64").spawn();
    let _vms: Vec<_> = (0..20).map(|n| guest(&daemon, &format!("vm-{n}"))).collect();
    daemon.until("/readyz", |ready| ready.status == 200).await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(tokio::net::UnixStream::connect(daemon.unix_socket()).await.unwrap());
    }
    let shed = daemon.until("/vms", |list| list.status == 503).await;
    shed.assert_problem(503, "overloaded");
    assert!(shed.headers.contains_key("retry-after"));
    daemon.until("/healthz", |alive| alive.status == 200).await;
    // Rejected while the crowd is still connected.
    daemon
        .until("/vms", |list| matches!(list.status, 200 | 503))
        .await
        .assert_problem(503, "overloaded");
    drop(crowd);
    daemon
        .until("/vms", |list| {
            let vms = list.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
            vms.len() == 20 && vms.iter().all(|vm| vm["state"] == "ready")
        })
        .await;
    daemon.until("/vms/vm-7/health", |health| health.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_vms_at_once_all_ready_dials_bounded() {
    let daemon = TestDaemon::start().await;
    let handshakes = Arc::new(HandshakeCounter::default());
    // Long enough for all of them to overlap, if their number were not limited.
    let pause = Duration::from_millis(50);
    let behaviour = |n: usize| {
        let guest = Guest::new(&format!("vm-{n}"), Dialect::Base, 1, Arc::default());
        Behaviour::GrantsLate(Arc::clone(&handshakes), pause, guest)
    };
    let vms: Vec<_> = (0..1000)
        .map(|n| FakeVmm::start(daemon.sockets(), &format!("vm-{n}"), behaviour(n)).unwrap())
        .collect();
    daemon
        .until("/vms", |list| {
            let vms = list.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
            vms.len() == 1000 && vms.iter().all(|vm| vm["state"] == "ready")
        })
        .await;
    let dials: usize = vms.iter().map(FakeVmm::accepted).sum();
    assert!((1000..1100).contains(&dials), "{dials} dials for a thousand VMs");
    assert!((2..=64).contains(&handshakes.most()), "{} dials at once", handshakes.most());
    assert_eq!(vms.iter().map(FakeVmm::half_connects).sum::<usize>(), 0);
}

#[tokio::test]
async fn a_thousand_vms_never_answer_connect_dials_bounded() {
    let daemon = TestDaemon::start().await;
    let vms: Vec<_> = (0..1000)
        .map(|n| {
            FakeVmm::start(daemon.sockets(), &format!("vm-{n}"), Behaviour::NeverGrants).unwrap()
        })
        .collect();
    let dialled = || vms.iter().map(FakeVmm::accepted).sum::<usize>();
    let begun = Instant::now();
    until("the daemon dials", async || dialled() >= 32).await;
    for _ in 0..10 {
        // At most 64 at a time, each for at least 2 s.
        let most = 64 * (1 + usize::try_from(begun.elapsed().as_secs()).unwrap() / 2 + 1);
        let (dials, list) = (dialled(), daemon.get("/vms").await);
        assert!(dials <= most, "{dials} dials at once");
        assert_eq!(list.json["vms"].as_array().unwrap().len(), 1000);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn directory_removed_and_created_again_vms_found_again() {
    let daemon = TestDaemon::with(|config| config.socket_dir = config.socket_dir.join("vms")).await;
    let dir = daemon.sockets().join("vms");
    for life in 1..4 {
        fs::create_dir(&dir).unwrap();
        let guest = Guest::new("web-1", Dialect::Objects, life, Arc::default());
        let vm = FakeVmm::start(&dir, "web-1", Behaviour::Guest(guest)).unwrap();
        let seen = daemon.until_state("web-1", "ready").await;
        assert_eq!(seen.json["agent"]["instance_id"], format!("web-1 {life}"));
        // A new VM: only events or scans of the new directory can reveal it.
        let guest = Guest::new("web-2", Dialect::Objects, life, Arc::default());
        let later = FakeVmm::start(&dir, "web-2", Behaviour::Guest(guest)).unwrap();
        daemon.until_state("web-2", "ready").await;
        drop((vm, later));
        fs::remove_dir_all(&dir).unwrap();
        daemon.until("/vms", |list| list.json["vms"] == json!([])).await;
        daemon.get("/vms/web-1/health").await.assert_problem(404, "vm_not_found");
    }
}

#[tokio::test]
async fn inotify_overflow_new_vms_found_removed_vms_gone() {
    let World { daemon, vm: _vm, .. } = World::new().await;
    let removed = Guest::new("web-2", Dialect::Objects, 1, Arc::default());
    let removed = Behaviour::Guest(removed);
    let vm = FakeVmm::start_as(daemon.sockets(), "web-2", removed, "vmm").unwrap();
    daemon.until_state("web-2", "ready").await;
    let queue = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    // On the thread that also runs the daemon, which therefore reads none of the events.
    for n in 0..queue {
        let file = daemon.sockets().join(format!("{n}"));
        fs::write(&file, "").unwrap();
        fs::remove_file(&file).unwrap();
    }
    // Events of these do not fit in the queue any more.
    drop(vm);
    let guest = Guest::new("late", Dialect::Objects, 1, Arc::default());
    let _late = FakeVmm::start(daemon.sockets(), "late", Behaviour::Guest(guest)).unwrap();
    daemon.until_state("late", "ready").await;
    daemon.until("/vms/web-2", |vm| vm.status == 404).await;
}

#[tokio::test]
async fn client_leaves_during_exec_program_ended_nothing_leaked() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", pid.display());
    let body = json!({ "command": "sh", "args": ["-c", script] });
    let call = daemon.http.post(daemon.url("/vms/web-1/exec")).json(&body).send();
    let call = tokio::spawn(call);
    until("the program runs", async || {
        fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    call.abort();
    let left = Instant::now();
    let pid = fs::read_to_string(&pid).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    until("the program is killed", async || {
        fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))
    })
    .await;
    // The client left; for a lost client the agent would wait for its re-attach grace.
    assert!(left.elapsed() < Duration::from_secs(10), "{:?}", left.elapsed());
    daemon
        .until("/vms/web-1", |vm| {
            (&vm.json["pool"]["streams"], &vm.json["pool"]["in_use"]) == (&json!(0), &json!(0))
        })
        .await;
    assert_eq!(daemon.exec("web-1", "true", &[]).await.json["exit_code"], 0);
}

#[tokio::test]
async fn sigterm_during_exec_drains_within_the_grace_period_and_logs_the_rest() {
    let mut daemon = Minionsd::builder().spawn();
    let behaviour = Behaviour::Agent(agent().unwrap());
    let _vm = FakeVmm::start(daemon.dir(), "web-1", behaviour).unwrap();
    daemon.until("/vms/web-1", |vm| vm.json["state"] == "ready").await;
    let go = daemon.dir().join("go");
    let waits = format!("until [ -e {} ]; do sleep 0.05; done; echo done", go.display());
    let short = exec(&daemon, json!({ "command": "sh", "args": ["-c", waits] }));
    let long = exec(&daemon, json!({ "command": "sleep", "args": ["600"] }));
    let (short, long) = (tokio::spawn(short), tokio::spawn(long));
    // Both run: a place in the pool is taken before the program is started.
    daemon
        .until("/vms/web-1/execs", |listed| {
            listed.json["execs"].as_array().is_some_and(|execs| execs.len() == 2)
        })
        .await;
    daemon.signal(Signal::TERM);
    // The daemon is stopping, but the short program may still end.
    until("the daemon accepts no new connections", async || daemon.get("/healthz").await.is_none())
        .await;
    fs::write(&go, "").unwrap();
    assert_eq!(short.await.unwrap().unwrap().json["stdout"], "done\n");
    let ended = until("the daemon has ended", async || daemon.ended()).await;
    assert!(ended.success(), "{ended}");
    assert!(long.await.unwrap().is_err(), "the call must fail: the end of the program is unknown");
    let log = daemon.log();
    assert!(log.contains("cut off") && log.contains("connections=1"), "{log}");
}

#[tokio::test]
async fn agent_crashes_during_exec_502_may_have_executed_ready_again() {
    let world = World::new().await;
    let mut events = Events::of(&world.daemon).await;
    let call = world
        .in_mid_exec(LONG, async || {
            // For a moment no agent listens in the guest.
            world.vm.switch_to(Behaviour::Refuses);
            world.daemon.until_state("web-1", "unreachable").await;
            world.guest.restart(2, false);
            world.guest.behave(Manner::Well);
            world.vm.switch_to(Behaviour::Guest(world.guest.clone()));
        })
        .await;
    call.assert_problem(502, "connection_lost");
    assert_eq!(call.json["may_have_executed"], true);
    events.until("agent.restarted").await;
    world.daemon.until_state("web-1", "ready").await;
    assert_eq!(world.order(2, LONG).await.status, 200);
    assert_eq!(world.ran(1), 1, "the program was started again");
}

#[tokio::test]
async fn host_clock_jumps_execs_work_timers_unaffected() {
    let shim = tempfile::tempdir().unwrap();
    let (library, offset) = (shim.path().join("host_clock.so"), shim.path().join("offset"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/faults/host_clock.c");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    assert!(compile.status().unwrap().success());
    let daemon = Minionsd::builder()
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("HOST_CLOCK_OFFSET", offset.to_str().unwrap())
        .spawn();
    let behaviour = Behaviour::Agent(agent().unwrap());
    let _vm = FakeVmm::start(daemon.dir(), "web-1", behaviour).unwrap();
    let ready = daemon.until("/vms/web-1", |vm| vm.json["state"] == "ready").await;
    let year = |vm: &Reply| vm.json["last_seen"].as_str().unwrap()[..4].parse::<i64>().unwrap();
    // This program runs during both jumps.
    let (runs, go) = (shim.path().join("runs"), shim.path().join("go"));
    let waits = format!("> {}; until [ -e {} ]; do sleep 0.05; done", runs.display(), go.display());
    let call = tokio::spawn(exec(&daemon, json!({ "command": "sh", "args": ["-c", waits] })));
    until("the program runs", async || runs.exists()).await;
    for days in [-400_i64, 400] {
        fs::write(&offset, (days * 86_400).to_string()).unwrap();
        // The next probe sees the VM in another year, and otherwise unchanged.
        let ahead = |vm: &Reply| (year(vm) - year(&ready)).signum() == days.signum();
        daemon.until("/vms/web-1", ahead).await;
        let begun = Instant::now();
        let timed = daemon.get("/vms/web-1/health?timeout_ms=60000").await.unwrap();
        assert_eq!(timed.status, 200);
        let sleep = json!({ "command": "sleep", "args": ["60"], "timeout_ms": 300 });
        let slept = exec(&daemon, sleep);
        assert_eq!(slept.await.unwrap().json["outcome"]["type"], "timed_out");
        assert!(begun.elapsed() < Duration::from_secs(50), "a timer uses the wrong clock");
    }
    fs::write(&go, "").unwrap();
    assert_eq!(call.await.unwrap().unwrap().json["exit_code"], 0);
    let after = daemon.get("/vms/web-1").await.unwrap();
    assert_eq!(
        (&after.json["state"], &after.json["since"]),
        (&json!("ready"), &ready.json["since"])
    );
}

#[tokio::test]
async fn handshake_split_coalesced_or_malformed_parsed_exactly() {
    let daemon = TestDaemon::start().await;
    let pieces = |line: &str| line.bytes().map(|byte| vec![byte]).collect::<Vec<_>>();
    let whole = |line: &str| vec![line.as_bytes().to_vec()];
    let endless = "O".repeat(10_000);
    for (name, granted, is_right) in [
        ("split", pieces("OK 1073741824\n"), true),
        ("zero", whole("OK 0\n"), true),
        ("longest", pieces(&format!("OK {}\n", "9".repeat(28))), true),
        ("too-long", whole(&format!("OK {}\n", "9".repeat(29))), false),
        ("no-number", whole("OK\n"), false),
        ("no-digits", whole("OK \n"), false),
        ("negative", whole("OK -1\n"), false),
        ("two-spaces", whole("OK  1\n"), false),
        ("trailing", whole("OK 1 \n"), false),
        ("carriage-return", whole("OK 1\r\n"), false),
        ("lower-case", whole("ok 1\n"), false),
        ("leading", whole(" OK 1\n"), false),
        ("contains", whole("NOT OK 1\n"), false),
        ("endless", whole(&endless), false),
    ] {
        let guest = Guest::new(name, Dialect::Objects, 1, Arc::default());
        let behaviour = Behaviour::GrantsInPieces(granted, guest);
        let vm = FakeVmm::start(daemon.sockets(), name, behaviour).unwrap();
        let path = format!("/vms/{name}");
        let seen = daemon.until(&path, |vm| vm.json["attempts"].as_u64() >= Some(1)).await;
        if is_right {
            assert_eq!(seen.json["state"], "ready", "{name}: {seen:?}");
            assert_eq!(daemon.get(&format!("{path}/health")).await.json["hostname"], name);
        } else {
            assert_eq!(seen.json["reason"]["failure"], "bad_handshake", "{name}: {seen:?}");
        }
        assert_eq!(vm.half_connects(), 0);
    }
}

#[tokio::test]
async fn two_hundred_slow_or_half_open_clients_bounded_others_unaffected() {
    let world = World::new().await;
    let address = world.daemon.address;
    let begun = &b"GET /vms/web-1/health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "[..];
    let half_body = format!(
        "POST /vms/web-1/exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
         Content-Type: application/json\r\nContent-Length: 900\r\n\r\n{{",
        world.daemon.bearer()
    );
    let mut half_open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // No bytes, half a head, half a body.
        match n % 3 {
            0 => {}
            1 => stream.write_all(begun).await.unwrap(),
            _ => stream.write_all(half_body.as_bytes()).await.unwrap(),
        }
        half_open.push(stream);
    }
    let slow = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for byte in begun {
            stream.write_all(&[*byte]).await.unwrap();
            sleep(Duration::from_millis(5)).await;
        }
    });
    // One client with two hundred connections and a call on each of them.
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let http = testkit::daemon::http().timeout(DEADLINE).build().unwrap();
        let url = world.daemon.url("/vms/web-1/health");
        calls.spawn(async move { read(http.get(url).send().await.unwrap()).await });
    }
    for reply in calls.join_all().await {
        if reply.status != 200 {
            reply.assert_problem(503, "overloaded");
        }
    }
    // These clients hold only their own connections: no call in the pool, and no connection to a guest.
    let seen = world.daemon.get("/vms/web-1").await;
    assert_eq!(seen.json["pool"]["in_use"], 0, "{seen:?}");
    assert!(seen.json["pool"]["idle"].as_u64() <= seen.json["pool"]["limit"].as_u64());
    assert!(world.vm.accepted() <= 16, "{} connections to the guest", world.vm.accepted());
    assert_eq!(world.order(1, LONG).await.status, 200);
    slow.await.unwrap();
    drop(half_open);
    assert_eq!(world.daemon.get("/vms/web-1/health").await.status, 200);
}
