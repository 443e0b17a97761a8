//! Guests that attack the daemon: its memory stays bounded, and other VMs are not affected.

use serde_json::json;
use std::time::Duration;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::minionsd::Minionsd;
use testkit::wire::framed;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Allowed growth of the daemon's memory, whatever guests do.
const GROWTH_KIB: u64 = 32 * 1024;

const CALLERS: usize = 8;
const CALLS: usize = 40;

/// Returns one hostile guest of each kind.
fn hostile() -> Vec<(&'static str, Behaviour)> {
    let escapes = "\\u001b[2J".repeat(100_000);
    let hostname = format!(r#"{{"status":"ok","uptime_secs":1,"hostname":"{escapes}"}}"#);
    let features = vec!["\"f\""; 200_000].join(",");
    let agent = format!(
        r#"{{"status":"ok","uptime_secs":1,"hostname":"h","agent":{{"name":"n","version":"v",
           "protocol":2,"boot_id":"b","instance_id":"i","features":[{features}]}}}}"#
    );
    vec![
        ("four-gigabytes", Behaviour::Replies(vec![0xff; 4])),
        ("deep", Behaviour::Replies(framed("[".repeat(1_000_000)))),
        (
            "deep-inside",
            Behaviour::Replies(framed(format!("{{\"status\":{}", "[".repeat(900_000)))),
        ),
        ("escapes", Behaviour::Replies(framed(&hostname))),
        ("features", Behaviour::Replies(framed(&agent))),
        ("flood", Behaviour::Floods(vec![b'A'; 64 * 1024])),
        ("flood-of-frames", Behaviour::Floods(framed(r#"{"status":"ok"}"#).repeat(1000))),
        ("half-a-frame", Behaviour::Replies(framed("x".repeat(1_000_000))[..900_000].to_vec())),
        ("drip", Behaviour::Drips(framed(&hostname), Duration::from_millis(100))),
        ("silent", Behaviour::Silent),
        ("long-line", Behaviour::Grants(vec![b'O'; 1_000_000])),
    ]
}

async fn status_of(http: &reqwest::Client, vm: &str, resource: &str) -> u16 {
    let url = format!("http://minionsd/vms/{vm}{resource}");
    let request = match resource {
        "/exec" => http.post(url).json(&json!({ "command": "true" })),
        _ => http.get(url),
    };
    let Ok(response) = request.send().await else { return 0 };
    let status = response.status().as_u16();
    response.bytes().await.map_or(0, |_| status)
}

/// Calls all VMs repeatedly, from several callers at once.
async fn besiege(http: &reqwest::Client, vms: &[&'static str]) {
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (http, vms) = (http.clone(), vms.to_vec());
        callers.spawn(async move {
            for call in 0..CALLS {
                let vm = vms[(caller + call) % vms.len()];
                let resource = ["/health?timeout_ms=300", "/status?timeout_ms=300", "", "/exec"];
                let status = status_of(&http, vm, resource[call % 4]).await;
                assert!((200..=504).contains(&status), "{vm}: {status}");
            }
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_guests_use_bounded_memory_and_do_not_affect_other_vms() {
    let daemon = Minionsd::builder().env("MINIONS_LOG", "debug").start();
    let vm = |name, behaviour| FakeVmm::start(daemon.vms(), name, behaviour).unwrap();
    let _good = vm("good", Behaviour::Agent(agent().unwrap()));
    let http = daemon.http();
    daemon.until("/vms/good/health", |health| health.status == 200).await;
    besiege(http, &["good"]).await;
    // The peak of resident memory, in KiB.
    let peak = || daemon.status_field("VmHWM").unwrap();
    let before = peak();

    let hostile = hostile();
    let names: Vec<_> = hostile.iter().map(|(name, _)| *name).collect();
    let _vms: Vec<_> = hostile.into_iter().map(|(name, behaviour)| vm(name, behaviour)).collect();
    let siege = besiege(http, &names);
    let meanwhile = async {
        for _ in 0..200 {
            assert_eq!(status_of(http, "good", "/health").await, 200);
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(siege, meanwhile);
    let growth = peak().saturating_sub(before);
    println!("peak before {before} KiB, growth {growth} KiB");
    assert!(growth <= GROWTH_KIB, "grew by {growth} KiB from {before} KiB");

    let control = daemon.log().chars().find(|c| c.is_ascii_control() && *c != '\n');
    assert_eq!(control, None, "the log contains a control character");
}

#[tokio::test]
async fn a_reply_nested_too_deeply_in_an_ignored_field_is_a_protocol_error() {
    let health = |ignored: &str| {
        framed(format!(r#"{{"status":"ok","uptime_secs":1,"hostname":"h","ignored":{ignored}}}"#))
    };
    let daemon = testkit::daemon::TestDaemon::start().await;
    let deep = "[".repeat(400_000) + &"]".repeat(400_000);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Replies(health("[[]]"))).unwrap();
    daemon.until_state("web-1", "ready").await;
    vm.switch_to(Behaviour::Replies(health(&deep)));
    let refused = daemon.until("/vms/web-1/health", |health| health.status != 200).await;
    assert!(matches!(refused.status, 502 | 503), "{refused:?}");
    daemon.until("/vms/web-1", |vm| vm.json["reason"]["failure"] == "protocol_error").await;
}
