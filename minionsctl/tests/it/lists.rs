//! Lists of VMs and programs in all output formats, versions, the caller, and suggestions for wrong names.

use crate::exec::guest::{Guest, feed};
use crate::shared::command::{Ran, Running, ctl, minionsctl};
use serde_json::{Value, json};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wait::until;

/// A daemon with the ready VMs `web-1` and `db`, and with `web-2`, whose agent does not listen.
struct Site {
    guest: Guest,
    _others: [FakeVmm; 2],
}

impl Site {
    async fn start() -> Self {
        let guest = Guest::start().await;
        let sockets = guest.daemon.sockets();
        let db = FakeVmm::start(sockets, "db", Behaviour::Agent(agent().unwrap())).unwrap();
        let refusing = FakeVmm::start(sockets, "web-2", Behaviour::Refuses).unwrap();
        guest.daemon.until_state("db", "ready").await;
        guest.daemon.until_state("web-2", "unreachable").await;
        Self { guest, _others: [db, refusing] }
    }

    fn stdout(&self, args: &[&str]) -> String {
        let ran = self.guest.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        String::from_utf8(ran.stdout).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_selects_vms_and_prints_every_format() {
    let site = Site::start().await;
    for (args, names) in [
        (&["ls", "-q"][..], "db\nweb-1\nweb-2\n"),
        (&["ls", "-q", "web-*"], "web-1\nweb-2\n"),
        (&["list", "-o", "name", "db", "web-2"], "db\nweb-2\n"),
        (&["ls", "-q", "--state", "unreachable"], "web-2\n"),
        (&["ls", "-q", "--state", "ready", "web-?"], "web-1\n"),
        (&["ls", "-q", "x*"], ""),
    ] {
        assert_eq!(site.stdout(args), names, "{args:?}");
    }
    assert!(site.stdout(&["ls"]).starts_with("NAME   STATE        AGE"));
    let wide = site.stdout(&["ls", "-o", "wide", "db"]);
    assert!(wide.contains("SOCKET") && wide.contains("db.vsock"), "{wide}");
    let bare = site.stdout(&["ls", "--no-headers"]);
    assert!(bare.starts_with("db ") && bare.lines().count() == 3, "{bare}");
    let yaml: Value = serde_saphyr::from_str(&site.stdout(&["ls", "db", "-o", "yaml"])).unwrap();
    let mut json: Value = serde_json::from_str(&site.stdout(&["ls", "db", "-o", "json"])).unwrap();
    // The number of probes changes meanwhile.
    for field in ["name", "state", "socket", "agent"] {
        assert_eq!(yaml["vms"][0][field], json["vms"][0][field].take(), "{field}");
    }
    site.guest.run(&["ls", "x*"]).assert(0, "NAME", "no VM has these properties");
    site.guest.run(&["ls", "--state", "off"]).assert(
        2,
        "",
        "connecting, ready, unreachable or stale",
    );
    site.guest.run(&["ls", "a/b"]).assert(2, "", "characters of A-Z");
    site.guest.run(&["-o", "name", "get", "db"]).assert(1, "", "-o name applies to");
}

#[tokio::test(flavor = "multi_thread")]
async fn ps_lists_running_programs_of_one_vm_or_of_all() {
    let site = Site::start().await;
    let fifo = site.guest.fifo("fifo");
    for (vm, id) in [("web-1", "one"), ("db", "two")] {
        site.stdout(&["exec", "-d", "--id", id, vm, "cat", fifo.to_str().unwrap()]);
    }
    site.stdout(&["exec", "--id", "over", "web-1", "true"]);
    assert_eq!(site.stdout(&["ps", "-q", "web-1"]), "one\n");
    assert_eq!(site.stdout(&["ps", "-q", "-a", "web-1"]), "one\nover\n");
    assert_eq!(site.stdout(&["ps", "-o", "name"]), "two\none\n");
    let everywhere = site.guest.run(&["ps"]);
    everywhere.assert(0, "VM ", "programs unknown: web-2 is unreachable");
    everywhere.assert(0, "db     two", "").assert(0, "web-1  one", "");
    let all: Value = serde_json::from_str(&site.stdout(&["ps", "-a", "-o", "json"])).unwrap();
    assert_eq!(all["vms"][1]["execs"][1]["id"], "over");
    assert_eq!(all["vms"][2]["error"], "web-2 is unreachable");
    for id in [["db", "two"], ["web-1", "one"]] {
        site.stdout(&["kill", id[0], id[1], "--remove"]);
    }
    assert_eq!(site.stdout(&["ps", "-o", "name"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_can_begin_with_the_last_lines() {
    let guest = Guest::start().await;
    let fifo = guest.fifo("fifo");
    let script = format!("seq 9; echo e1 >&2; echo e2 >&2; cat {}", fifo.display());
    guest.run(&["exec", "-d", "--id", "job", "web-1", "sh", "-c", &script]).assert(0, "job", "");
    until("the output is written", || guest.run(&["logs", "web-1", "job"]).stderr == "e1\ne2\n");
    let tail = guest.run(&["logs", "--tail", "2", "web-1", "job"]);
    assert_eq!((&tail.stdout[..], tail.stderr.as_str()), (&b"8\n9\n"[..], "e1\ne2\n"));
    let tail = guest.run(&["logs", "-n", "0", "web-1", "job"]);
    assert_eq!((&tail.stdout[..], tail.stderr.as_str()), (&b""[..], ""));
    let mut follower = Running::start(&mut guest.ctl(&["logs", "-f", "-n1", "web-1", "job"]));
    assert_eq!(follower.line(), "9");
    feed(&fifo, "10\n");
    let rest = follower.end();
    assert_eq!((&rest.stdout[..], rest.stderr.as_str()), (&b"10\n"[..], "e2\n"));
    for refused in [&["--since", "5m"][..], &["-t"]] {
        let args = [&["logs", "web-1", "job"], refused].concat();
        guest.run(&args).assert(1, "", "without timestamps");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn version_and_whoami_describe_all_parts_and_the_caller() {
    let site = Site::start().await;
    let versions: Value = serde_json::from_str(&site.stdout(&["version", "-o", "json"])).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let program = |name: &str| json!({ "name": name, "version": version, "protocol": 2 });
    assert_eq!(versions["client"], program("minionsctl"));
    assert_eq!(versions["server"], program("minionsd"));
    let agents = json!([{ "version": version, "protocol": 2, "vms": ["db", "web-1"] }]);
    assert_eq!(versions["agents"], agents);
    let table = site.stdout(&["version"]);
    assert!(table.contains("minions-agent  0.1.0    2         2"), "{table}");
    let gone = ["--host", "http://127.0.0.1:1", "version"];
    Ran::of(&mut minionsctl(&gone)).assert(1, "minionsctl", "cannot reach minionsd");

    let uid = rustix::process::getuid().as_raw();
    let whoami = |host: &str, args: &[&str]| Ran::of(&mut ctl(host, &[&["whoami"], args].concat()));
    let over_unix = format!("unix:{}", site.guest.daemon.unix_socket().display());
    let caller = whoami(&over_unix, &["-o", "json"]).json();
    assert_eq!(caller["identity"], json!({ "kind": "user", "uid": uid }));
    assert_eq!(caller["scopes"], json!(["read", "operate"]));
    whoami(&over_unix, &[]).assert(0, "the kernel, for the Unix socket", "");
    let over_tcp = whoami(&site.guest.daemon.url(""), &[]);
    over_tcp.assert(0, &format!("user {uid}"), "").assert(
        0,
        "for the connection over loopback",
        "",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn similar_names_are_suggested() {
    let site = Site::start().await;
    site.stdout(&["exec", "--id", "job-17", "web-1", "true"]);
    let run = |args: &[&str]| site.guest.run(args);
    run(&["get", "Web-1"]).assert(1, "", "hint: did you mean web-1 or web-2?");
    run(&["exec", "bd", "true"]).assert(125, "", "hint: did you mean db?");
    run(&["health", "nothing"]).assert(1, "", "hint: `minionsctl ls` lists the VMs");
    run(&["logs", "web-1", "job-71"]).assert(1, "", "hint: did you mean job-17?");
    run(&["wait", "web-1", "db"]).assert(125, "", "minionsctl wait --for ready web-1 db");
    run(&["logs", "web-1"]).assert(1, "", "`minionsctl ps web-1` lists the ids of the VM web-1");
    run(&["kill", "web-1"]).assert(1, "", "VM and ID are needed, and only web-1 is given");
    run(&["attach", "web-1"]).assert(125, "", "VM and ID are needed");
    run(&["confirm-network", "web-1"]).assert(1, "", "VM and ID are needed");
    run(&["helth", "web-1"]).assert(2, "", "'health'");
}
