//! Figures of guests: of the real agent, and of agents that hang or lie.

use minionsd::config::SampleIntervals;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use testkit::agent_process::AgentProcess;
use testkit::daemon::{Reply, TestDaemon};
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, SampleReply};

/// A daemon that asks each guest for samples as often as is allowed.
async fn daemon() -> TestDaemon {
    TestDaemon::with(|config| {
        let default = Some(Duration::from_secs(1));
        config.samples = SampleIntervals { default, rules: Vec::new() };
    })
    .await
}

/// Starts a VM whose agent replies to requests for samples in this way.
async fn vm(daemon: &TestDaemon, name: &str, reply: SampleReply) -> (FakeVmm, Guest) {
    let guest = Guest::new(name, Dialect::Objects, 1, Arc::default());
    guest.reply_to_sample(reply);
    let vm = FakeVmm::start(daemon.sockets(), name, Behaviour::Guest(guest.clone())).unwrap();
    daemon.until_state(name, "ready").await;
    (vm, guest)
}

async fn page(daemon: &TestDaemon) -> String {
    daemon.http.get(daemon.url("/metrics/guests")).send().await.unwrap().text().await.unwrap()
}

fn points(reply: &Reply) -> &[Value] {
    reply.json["samples"].as_array().unwrap()
}

#[tokio::test]
async fn the_figures_of_a_guest_are_kept_and_end_with_it() {
    let daemon = daemon().await;
    let agent = AgentProcess::start(daemon.sockets(), "web-1", &[]);
    daemon.until_state("web-1", "ready").await;
    let sampled = daemon.until("/vms/web-1/samples", |reply| points(reply).len() >= 2).await;
    assert_eq!(
        (&sampled.json["status"], &sampled.json["interval_ms"]),
        (&json!("ok"), &json!(1000))
    );
    let latest = &sampled.json["latest"];
    assert!(
        latest["memory"]["total_bytes"].as_u64() > latest["memory"]["available_bytes"].as_u64()
    );
    let interfaces = latest["interfaces"].as_array().unwrap();
    assert!(interfaces.iter().any(|one| one["name"] == "lo"), "{interfaces:?}");
    assert!(latest["agent"]["memory_bytes"].as_u64() > Some(0) && latest["age_ms"].is_u64());
    let [first, second, ..] = points(&sampled) else { panic!("{sampled:?}") };
    assert!(first.get("user_percent").is_none(), "a first sample has no rates: {first}");
    assert!(second["user_percent"].is_f64() && second["receive_rate"].is_f64(), "{second}");

    let since = first["at"].as_str().unwrap();
    let later = daemon.get(&format!("/vms/web-1/samples?since={since}")).await;
    assert_eq!(points(&later)[0]["at"], second["at"]);
    let wrong = daemon.get("/vms/web-1/samples?since=yesterday").await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.json["field"], "since");

    let text = page(&daemon).await;
    for series in [
        "minions_guest_sample_age_seconds{vm=\"web-1\"}",
        "minions_guest_cpu_seconds_total{vm=\"web-1\",mode=\"idle\"}",
        "minions_guest_network_bytes_total{vm=\"web-1\",interface=\"lo\",direction=\"receive\"}",
        "minions_guest_execs_running{vm=\"web-1\"} 0",
    ] {
        assert!(text.contains(series), "{series} in {text}");
    }
    let documentation = include_str!("../../../docs/OPERATIONS.md");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(documentation.contains(&format!("`{name}")), "docs/OPERATIONS.md lacks {name}");
    }
    drop(agent);
    std::fs::remove_file(daemon.sockets().join("web-1.vsock")).unwrap();
    daemon.until("/vms/web-1", |vm| vm.status == 404).await;
    assert!(!page(&daemon).await.contains("web-1"));
}

#[tokio::test]
async fn a_guest_that_does_not_report_delays_no_other_one() {
    let daemon = daemon().await;
    let (hung_vm, hung) = vm(&daemon, "hung", SampleReply::Never).await;
    let (_vm, _guest) = vm(&daemon, "web-1", SampleReply::Figures(json!({ "uptime_ms": 5 }))).await;
    daemon.until("/vms/web-1/samples", |reply| points(reply).len() >= 4).await;
    let nothing = daemon.get("/vms/hung/samples").await;
    assert!(nothing.json.get("latest").is_none() && points(&nothing).is_empty(), "{nothing:?}");
    hung.reply_to_sample(SampleReply::Figures(json!({ "uptime_ms": 7 })));
    hung_vm.cut();
    let back = daemon.until("/vms/hung/samples", |reply| reply.json["latest"].is_object()).await;
    assert_eq!(back.json["latest"]["uptime_ms"], 7);
}

#[tokio::test]
async fn absurd_figures_stay_numbers_and_texts_stay_labels() {
    let daemon = daemon().await;
    let disk = |name: &str| {
        json!({ "name": name, "reads": u64::MAX, "read_bytes": u64::MAX, "writes": 0,
                "written_bytes": 0, "busy_ms": u64::MAX })
    };
    let name = "a\"} 1\u{0}\nb{vm=\"c\\";
    let figures = json!({
        "uptime_ms": u64::MAX, "cpus": u32::MAX,
        "load": { "one": 1e300, "five": -1.0, "fifteen": 0.0 },
        "disks": [disk(name), disk(name), disk("vda")],
    });
    let (_vm, guest) = vm(&daemon, "web-1", SampleReply::Figures(figures)).await;
    daemon.until("/vms/web-1/samples", |reply| points(reply).len() >= 2).await;
    let text = page(&daemon).await;
    let reads: Vec<_> = text.lines().filter(|line| line.contains("disk_reads_total{")).collect();
    let escaped = "device=\"a\\\"} 1\u{fffd}\u{fffd}b{vm=\\\"c\\\\\"";
    assert_eq!(reads.len(), 2, "one series for each name: {reads:?}");
    assert!(reads[0].contains(escaped) && reads[1].contains("device=\"vda\""), "{reads:?}");
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    // More than any agent reports.
    let many = vec![disk("a"); 65];
    guest.reply_to_sample(SampleReply::Figures(json!({ "uptime_ms": 1, "disks": many })));
    let old = |reply: &Reply| reply.json["latest"]["age_ms"].as_u64() > Some(2500);
    let after = daemon.until("/vms/web-1/samples", old).await;
    assert_eq!(after.json["latest"]["uptime_ms"], u64::MAX);
    assert_eq!(daemon.get("/vms/web-1").await.json["state"], "ready");
}

#[tokio::test]
async fn declared_labels_and_addresses_lead_prometheus_to_the_guests() {
    let daemon = daemon().await;
    let _vm = vm(&daemon, "web-1", SampleReply::Figures(json!({ "uptime_ms": 5 }))).await;
    let _other = vm(&daemon, "db-1", SampleReply::Figures(json!({ "uptime_ms": 5 }))).await;
    let body = json!({ "labels": { "app": "web", "app.tier": "1" },
                       "network": { "interfaces": [{ "addresses": ["fd00::2/64", "10.0.0.2/24"] }] } });
    let put = daemon.put("/declarations/web-1", body).await;
    assert_eq!(put.status, 200, "{put:?}");
    let listed = |reply: &Reply| !reply.json.as_array().unwrap().is_empty();
    let found = daemon.until("/sd?port=9200&label=app=web", listed).await;
    let labels = json!({ "__meta_minions_vm": "web-1", "__meta_minions_state": "ready",
                         "__meta_minions_label_app": "web", "__meta_minions_label_app_tier": "1" });
    assert_eq!(found.json, json!([{ "targets": ["10.0.0.2:9200"], "labels": labels }]));
    assert_eq!(daemon.get("/sd?name=db-*").await.json, json!([]), "it has no address");
    let wrong = daemon.get("/sd?port=0").await;
    wrong.assert_problem(400, "invalid_request");
    assert_eq!(wrong.json["field"], "port");
    daemon.until("/vms/web-1/samples", |reply| reply.json["latest"].is_object()).await;
    let series =
        "minions_guest_uptime_seconds{label_app=\"web\",label_app_tier=\"1\",vm=\"web-1\"}";
    assert!(page(&daemon).await.contains(series));
}

#[tokio::test]
async fn a_vm_without_an_interval_or_with_an_older_agent_has_no_samples() {
    let web = "web-*".parse().unwrap();
    let daemon = TestDaemon::with(|config| {
        let rules = vec![minionsd::config::SampleRule { vms: web, interval: None }];
        config.samples = SampleIntervals { default: Some(Duration::from_secs(1)), rules };
    })
    .await;
    let (_off, _guest) =
        vm(&daemon, "web-1", SampleReply::Figures(json!({ "uptime_ms": 5 }))).await;
    let older = Guest::new("old", Dialect::Objects, 1, Arc::default());
    let _older = FakeVmm::start(daemon.sockets(), "old", Behaviour::Guest(older)).unwrap();
    let _sampled = vm(&daemon, "db-1", SampleReply::Figures(json!({ "uptime_ms": 5 }))).await;
    daemon.until("/vms/db-1/samples", |reply| points(reply).len() >= 2).await;
    let off = daemon.get("/vms/web-1/samples").await;
    assert_eq!(off.json, json!({ "status": "ok", "samples": [] }));
    let old = daemon.get("/vms/old/samples").await;
    assert_eq!(old.json, json!({ "status": "ok", "interval_ms": 1000, "samples": [] }));
}
