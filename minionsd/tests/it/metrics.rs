//! Metrics, as read by an operator's monitoring.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until_async;

/// Reads the page as Prometheus does, and returns every value by its name and labels.
async fn scrape(daemon: &TestDaemon) -> BTreeMap<String, f64> {
    let response = daemon.http.get(daemon.url("/metrics")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let (mut figures, mut families, mut family) = (BTreeMap::new(), BTreeSet::new(), String::new());
    for line in response.text().await.unwrap().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} occurs twice");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with(&family), "{line} does not belong to {family}");
            let again = figures.insert(name.to_owned(), value.parse().unwrap());
            assert_eq!(again, None, "{name} occurs twice");
        }
    }
    figures
}

#[tokio::test]
async fn requests_and_probes_are_counted_and_a_removed_vm_leaves_no_label() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Agent(agent().unwrap());
    let vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "vmm").unwrap();
    daemon.until_state("web-1", "ready").await;
    for _ in 0..3 {
        daemon.get("/vms/web-1/health").await;
    }
    daemon.get("/vms/nope/health").await;
    daemon.get("/no/such/path").await;
    let figures = scrape(&daemon).await;
    let is = |name: &str, value: f64| {
        assert_eq!(figures.get(name), Some(&value), "{name} in {figures:#?}");
    };
    is("minions_vms{state=\"ready\"}", 1.0);
    is("minions_vms{state=\"stale\"}", 0.0);
    is("minions_vm_ready{vm=\"web-1\"}", 1.0);
    is("minions_vm_connections{vm=\"web-1\",use=\"idle\"}", 1.0);
    let health = "method=\"GET\",route=\"/vms/{vm}/health\"";
    is(&format!("minions_http_requests_total{{{health},status=\"200\"}}"), 3.0);
    is(&format!("minions_http_requests_total{{{health},status=\"404\"}}"), 1.0);
    is(&format!("minions_http_request_duration_seconds_count{{{health}}}"), 4.0);
    is(&format!("minions_http_request_duration_seconds_bucket{{{health},le=\"+Inf\"}}"), 4.0);
    is("minions_http_requests_total{method=\"\",route=\"\",status=\"404\"}", 1.0);
    assert!(figures["minions_problems_total{code=\"vm_not_found\"}"] >= 1.0);
    is("minions_events_total", 2.0);
    is("minions_guest_bytes_in_flight", 0.0);
    assert!(figures["minions_probe_duration_seconds_count"] >= 1.0);
    assert!(figures["process_resident_memory_bytes"] > 1e6 && figures["process_open_fds"] > 3.0);
    drop(vm);
    daemon.until("/vms", |list| list.json["vms"].as_array().is_some_and(Vec::is_empty)).await;
    let figures = scrape(&daemon).await;
    assert!(!figures.keys().any(|name| name.contains("web-1")), "{figures:#?}");
}

#[tokio::test]
async fn failures_are_counted_by_their_layer() {
    let daemon = TestDaemon::start().await;
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Refuses).unwrap();
    daemon.until_state("web-1", "unreachable").await;
    let figures = scrape(&daemon).await;
    assert!(figures["minions_probe_failures_total{failure=\"no_agent\"}"] >= 3.0);
    assert!(figures["minions_dial_failures_total{failure=\"no_agent\"}"] >= 3.0);
}

#[tokio::test]
async fn values_chosen_by_a_caller_never_become_labels() {
    let daemon = TestDaemon::start().await;
    let _vm =
        FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    daemon.get("/vms/web-1").await;
    daemon.get("/vms/nope").await;
    daemon.get("/no/such/path").await;
    let before = scrape(&daemon).await;
    for n in 0..20 {
        daemon.get(&format!("/invented-{n}")).await;
        daemon.get(&format!("/vms/invented-{n}")).await;
    }
    let after = scrape(&daemon).await;
    assert!(!after.keys().any(|name| name.contains("invented")), "{after:#?}");
    let routes = |figures: &BTreeMap<String, f64>| {
        figures.keys().filter(|name| name.starts_with("minions_http_requests_total")).count()
    };
    // At most one more: that of the first scrape.
    assert!(routes(&after) <= routes(&before) + 1, "{before:#?} and then {after:#?}");
}

/// Name, type, names of labels, and help of every family, in the order of the page. Dashboards and alerts depend on
/// them.
const FAMILIES: &str = include_str!("metrics.txt");

/// Bounds of the buckets of every histogram.
const BOUNDS: [&str; 14] = [
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.05", "0.1", "0.5", "1",
    "5", "30", "+Inf",
];

/// Family of metrics, as a page presents it.
#[derive(Debug, Default)]
struct MetricFamily {
    header: [String; 4],
    /// Suffixes of the names, and values of `le`, in the order of the page.
    suffixes: Vec<String>,
    bounds: Vec<String>,
}

/// Reads the families of a page.
fn families(page: &str) -> Vec<MetricFamily> {
    let mut families: Vec<MetricFamily> = Vec::new();
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let header = [name.into(), String::new(), String::new(), help.into()];
            families.push(MetricFamily { header, ..MetricFamily::default() });
            continue;
        }
        let family = families.last_mut().unwrap();
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family.header[0]);
            family.header[1] = kind.into();
            continue;
        }
        let (sample, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let suffix = name.strip_prefix(&family.header[0]).unwrap().to_owned();
        // No value of a label in this test contains a comma.
        let labels =
            labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let (bound, labels): (Vec<_>, Vec<_>) = labels.partition(|(name, _)| *name == "le");
        family.bounds.extend(bound.iter().map(|(_, value)| value.trim_matches('"').to_owned()));
        family.header[2] = labels.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
        family.suffixes.push(suffix);
    }
    families
}

/// Returns a page in which every family has figures.
async fn complete_page(daemon: &TestDaemon) -> String {
    let trusted = fs::metadata(daemon.sockets()).unwrap().permissions();
    fs::set_permissions(daemon.sockets(), Permissions::from_mode(0o777)).unwrap();
    let failed = |name: &String| name.starts_with("minions_socket_scans_failed");
    until_async("a scan has failed", async || scrape(daemon).await.keys().any(failed)).await;
    fs::set_permissions(daemon.sockets(), trusted).unwrap();
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Refuses).unwrap();
    daemon.until_state("web-1", "unreachable").await;
    daemon.get("/vms/nope").await;
    daemon.http.get(daemon.url("/metrics")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn names_types_labels_and_help_of_all_metrics_are_fixed_and_documented() {
    let daemon = TestDaemon::start().await;
    let page = complete_page(&daemon).await;
    let families = families(&page);
    let rows = families.iter().map(|family| family.header.join(" | ") + "\n").collect::<String>();
    let (_, expected) = FAMILIES.split_once('\n').unwrap();
    assert_eq!(rows, expected, "{page}");
    let documentation = include_str!("../../../docs/OPERATIONS.md");
    for MetricFamily { header: [name, kind, labels, _], suffixes, bounds } in &families {
        let documented =
            if labels.is_empty() { format!("`{name}`") } else { format!("`{name}{{{labels}}}`") };
        assert!(documentation.contains(&documented), "docs/OPERATIONS.md lacks {documented}");
        let suffixes: BTreeSet<_> = suffixes.iter().map(String::as_str).collect();
        if kind == "histogram" {
            assert_eq!(suffixes, BTreeSet::from(["_bucket", "_count", "_sum"]), "{name}");
            assert!(bounds.chunks(BOUNDS.len()).all(|bounds| bounds == BOUNDS), "{bounds:?}");
        } else {
            assert_eq!((suffixes, bounds.len()), (BTreeSet::from([""]), 0), "{name}");
        }
    }
}
