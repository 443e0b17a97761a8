//! Declared state from the command line.

use crate::shared::command::{Ran, ctl};
use std::fs;
use std::path::PathBuf;
use testkit::daemon::TestDaemon;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;

const FILE: &str = "
pools:
  - {name: lan, subnet: 10.0.0.0/24, range: 10.0.0.2-10.0.0.9, gateway: 10.0.0.1}
declarations:
  - name: 'web-*'
    labels: {app: web}
    network: {pool: lan}
  - {name: db-1, labels: {app: db}}
";

/// Daemon with VMs whose base agents confirm every request, and a directory for files.
struct Site {
    daemon: TestDaemon,
    files: tempfile::TempDir,
    vms: Vec<FakeVmm>,
}

impl Site {
    async fn start(names: &[&str]) -> Self {
        let daemon = TestDaemon::start().await;
        let mut vms = Vec::new();
        for name in names {
            let reply =
                r#"{"status":"ok","uptime_secs":1,"hostname":"h","message":"network configured"}"#;
            let behaviour = Behaviour::Replies(framed(reply));
            vms.push(FakeVmm::start_as(daemon.sockets(), name, behaviour, "vmm").unwrap());
            daemon.until_state(name, "ready").await;
        }
        Self { daemon, files: tempfile::tempdir().unwrap(), vms }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.files.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut ctl(&self.daemon.host(), args))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_shows_what_it_does_and_a_second_apply_changes_nothing() {
    let mut site = Site::start(&["web-1", "other"]).await;
    let file = site.file("vms.yaml", FILE);
    let file = file.to_str().unwrap();
    let diff = site.run(&["diff", "-f", file]);
    diff.assert(1, "+ declaration web-*", "").assert(1, "dry run", "");
    assert_eq!(site.run(&["declarations"]).stdout.split(|byte| *byte == b'\n').count(), 2);
    let applied = site.run(&["apply", "-f", file]);
    applied.assert(0, "+ pool lan", "memory only").assert(0, "3 created", "db-1");
    applied.assert(0, "1 VM with another configuration: web-1", "");
    let items = |ran: &Ran| {
        let text = String::from_utf8(ran.stdout.clone()).unwrap();
        let kept = text.lines().filter(|line| !line.contains("3 created"));
        kept.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(items(&diff), items(&applied), "diff shows what apply does");
    site.run(&["apply", "-f", file]).assert(0, "3 unchanged: nothing to change", "");
    site.run(&["diff", "-f", file]).assert(0, "nothing to change", "");
    site.run(&["wait", "web-1", "--for", "configured"]).assert(0, "web-1 is configured", "");
    let never = site.run(&["wait", "other", "--for", "configured", "--timeout", "100ms"]);
    never.assert(1, "", "nothing is declared for it");
    let config = site.run(&["config", "web-1"]);
    config.assert(0, "applied", "").assert(0, "10.0.0.2/24", "").assert(0, "pool lan", "");
    site.run(&["config", "web-1", "--apply"]).assert(0, "applied", "");
    site.run(&["config", "web-1", "--explain"])
        .assert(0, "a pattern with 4 characters", "")
        .assert(0, "network.pool  web-*", "");
    site.run(&["get", "web-1"]).assert(0, "app=web", "");
    site.run(&["pool", "ls"]).assert(0, "10.0.0.2-10.0.0.9", "");
    site.run(&["pool", "leases", "lan", "--hosts"]).assert(0, "10.0.0.2\tweb-1\n", "");
    site.run(&["pool", "reserve", "lan", "--vm", "later"]).assert(
        0,
        "10.0.0.3 is reserved for later",
        "",
    );
    site.run(&["pool", "release", "lan", "10.0.0.2"]).assert(1, "", "in use by web-1");
    site.run(&["pool", "release", "lan", "10.0.0.3"]).assert(0, "10.0.0.3 is free", "");
    site.run(&["configure-network", "web-1", "--ip", "10.0.0.9/24", "--gateway", "10.0.0.1"])
        .assert(1, "", "override=true");
    let by_hand = [
        "configure-network",
        "web-1",
        "--ip",
        "10.0.0.9/24",
        "--gateway",
        "10.0.0.1",
        "--override",
    ];
    site.run(&by_hand).assert(0, "network configured", "");
    let less = site.file("less.yaml", "declarations: [{name: db-1, labels: {app: sql}}]");
    let pruned = site.run(&["apply", "--prune", "-f", less.to_str().unwrap()]);
    pruned.assert(1, "", "the pool \"lan\" has leases (1)");
    site.vms.clear();
    site.run(&["wait", "web-1", "--for", "gone"]).assert(0, "web-1 is gone", "");
    site.run(&["pool", "release", "lan", "10.0.0.2"]).assert(0, "10.0.0.2 is free", "");
    let pruned = site.run(&["apply", "--prune", "-f", less.to_str().unwrap()]);
    pruned.assert(0, "- pool lan", "").assert(0, "~ labels.app: \"db\" -> \"sql\"", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_address_in_no_pool_is_listed_and_released_without_one() {
    let mut site = Site::start(&["db-1"]).await;
    let fixed = "declarations: [{name: db-1, network: {ip: 10.7.0.2/24, gateway: 10.7.0.1, dns: [10.7.0.1]}}]";
    let file = site.file("fixed.yaml", fixed);
    site.run(&["apply", "-f", file.to_str().unwrap()]).assert(0, "1 created", "");
    site.run(&["wait", "db-1", "--for", "configured"]).assert(0, "db-1 is configured", "");
    site.run(&["pool", "leases"]).assert(0, "10.7.0.2", "").assert(0, "static", "");
    site.run(&["pool", "release", "10.7.0.2"]).assert(1, "", "in use by db-1");
    site.vms.clear();
    site.run(&["wait", "db-1", "--for", "gone"]).assert(0, "db-1 is gone", "");
    site.run(&["pool", "release", "lan", "10.7.0.2"]).assert(1, "", "no pool is named");
    site.run(&["pool", "release", "10.7.0.2"]).assert(0, "10.7.0.2 is free", "");
    site.run(&["pool", "release", "10.7.0.2"]).assert(1, "", "has no lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_directory_and_standard_input_are_applied_and_errors_name_the_file() {
    let site = Site::start(&[]).await;
    let dir = site.files.path().to_str().unwrap();
    site.run(&["apply", "-f", dir]).assert(1, "", "no file *.yaml");
    site.file("a.yaml", FILE);
    site.file("b.toml", "[[declarations]]\nname = 'cache'\nnetwork = { pool = 'lan' }\n");
    site.file("notes.txt", "not a declaration");
    site.run(&["apply", "-f", dir]).assert(0, "4 created", "");
    site.file("c.yml", "declarations: [{name: bad, network: {pool: wan}}]");
    let refused = site.run(&["apply", "-f", dir]);
    refused.assert(1, "", "declarations[3] is \"bad\" in").assert(1, "", "c.yml");
    refused.assert(1, "", "no pool has this name");
    site.file("c.yml", "declarations: [{name: x, netwrk: {}}]");
    let refused = site.run(&["apply", "-f", dir]);
    refused.assert(1, "", "c.yml").assert(1, "", "netwrk").assert(1, "", "network");
    let long = site.file("c.yml", &"# 10 MB\n".repeat(1_300_000));
    site.run(&["apply", "-f", dir]).assert(1, "", "larger than 1 MiB");
    let mut command = ctl(&site.daemon.host(), &["-o", "json", "apply", "--dry-run", "-f", "-"]);
    let input = site.file("input", "declarations: [{name: cache, hostname: c}]");
    let ran = Ran::of(command.stdin(fs::File::open(input).unwrap()));
    assert_eq!(ran.json()["items"][0]["action"], "updated", "{}", ran.stderr);
    let mut command = ctl(&site.daemon.host(), &["apply", "-f", "-"]);
    Ran::of(command.stdin(fs::File::open(long).unwrap())).assert(1, "", "the limit is 1048576");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_select_vms_for_ls_and_exec() {
    let site = Site::start(&[]).await;
    let start = |name: &str| {
        FakeVmm::start(site.daemon.sockets(), name, Behaviour::Agent(agent().unwrap())).unwrap()
    };
    let _vms = ["web-1", "web-2", "db-1"].map(start);
    for name in ["web-1", "web-2", "db-1"] {
        site.daemon.until_state(name, "ready").await;
    }
    let labels =
        "declarations: [{name: 'web-*', labels: {app: web}}, {name: web-2, labels: {env: prod}}]";
    let file = site.file("labels.yaml", labels);
    site.run(&["apply", "-f", file.to_str().unwrap()]).assert(0, "2 created", "");
    let listed = site.run(&["ls", "-l", "app=web,env!=prod"]);
    listed.assert(0, "web-1", "");
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("web-2"));
    let ran = site.run(&["exec", "-l", "app=web", "--", "echo", "hi"]);
    ran.assert(0, "web-1 | hi", "2 VMs: 2 ok").assert(0, "web-2 | hi", "");
    site.run(&["exec", "--on", "*-1", "-l", "!app", "--", "echo", "hi"]).assert(
        0,
        "db-1 | hi",
        "1 VM: 1 ok",
    );
    site.run(&["exec", "-l", "app=none", "--", "true"]).assert(125, "", "app=none");
    site.run(&["exec", "-l", "app=web", "web-1", "--", "true"]).assert(125, "", "leave out VM");
    site.run(&["ls", "-l", "a b"]).assert(2, "", "label requirement");
}
