//! A daemon with at most 64 descriptors, and a load that would need more.

use std::fs;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::minionsd::Minionsd;
use tokio::net::UnixStream;

/// Starts the daemon with hard limits, as set by `ulimit`.
fn limited(limits: &str) -> Minionsd {
    Minionsd::builder().after_script(limits).spawn()
}

#[tokio::test]
async fn a_hundred_vms_become_ready_with_descriptors_for_thirty() {
    let daemon = limited("ulimit -n 64");
    let _vms: Vec<_> = (0..100)
        .map(|n| {
            let behaviour = Behaviour::Agent(agent().unwrap());
            FakeVmm::start(daemon.vms(), &format!("vm-{n}"), behaviour).unwrap()
        })
        .collect();
    daemon
        .until("/vms", |list| {
            let vms = list.json["vms"].as_array().map_or(&[][..], Vec::as_slice);
            vms.len() == 100 && vms.iter().all(|vm| vm["state"] == "ready")
        })
        .await;
    assert_eq!(daemon.get("/healthz").await.unwrap().status, 200);
    for n in [0, 50, 99] {
        // A request may be rejected for a moment.
        daemon
            .until(&format!("/vms/vm-{n}/health"), |health| {
                assert!(matches!(health.status, 200 | 503), "{health:?}");
                health.status == 200
            })
            .await;
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_are_rejected_but_healthz_still_answers() {
    let daemon = limited("ulimit -n 64");
    daemon.until("/readyz", |reply| reply.status == 200).await;
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(UnixStream::connect(daemon.unix_socket()).await.unwrap());
    }
    let refused = daemon.until("/vms", |reply| reply.status == 503).await;
    assert_eq!(refused.json["code"], "overloaded");
    daemon.until("/healthz", |reply| reply.status == 200).await;
    drop(idle);
    daemon.until("/vms", |reply| reply.status == 200).await;
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let daemon = limited("ulimit -S -n 64; ulimit -H -n 640");
    daemon.until("/readyz", |reply| reply.status == 200).await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
    let limits = limits.unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let columns: Vec<_> = files.split_ascii_whitespace().collect();
    assert_eq!(columns[3..5], ["640", "640"], "{files}");
}
