//! REST with healthy VMs.

use serde_json::json;
use std::os::unix::net::UnixListener;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

#[tokio::test]
async fn a_vm_that_appears_is_listed_and_one_that_vanishes_is_not() {
    let daemon = TestDaemon::start().await;
    let behaviour = Behaviour::Agent(agent().unwrap());
    let vm = FakeVmm::start_as(daemon.sockets(), "web-1", behaviour, "vmm").unwrap();
    daemon.until_state("web-1", "ready").await;
    let list = daemon.get("/vms").await;
    assert_eq!(list.json["vms"][0]["name"], "web-1");
    assert_eq!(list.json["vms"][0]["agent"]["name"], "minions-agent");
    drop(vm);
    daemon.until("/vms", |list| list.json["vms"] == json!([])).await;
    daemon.get("/vms/web-1/health").await.assert_problem(404, "vm_not_found");
}

#[tokio::test]
async fn a_list_that_is_sent_in_parts_has_every_vm_once_in_order() {
    let daemon = TestDaemon::start().await;
    let names: Vec<_> = (0..150).map(|number| format!("vm-{number:03}")).collect();
    for name in &names {
        // No process listens: stale VMs are listed too.
        drop(UnixListener::bind(daemon.sockets().join(format!("{name}.vsock"))).unwrap());
    }
    let listed = |list: &Reply| -> Vec<String> {
        let vms = list.json["vms"].as_array().cloned().unwrap_or_default();
        vms.iter().filter_map(|vm| Some(vm["name"].as_str()?.to_owned())).collect()
    };
    daemon.until("/vms", |list| listed(list) == names).await;
    for (pattern, expected) in [
        ("vm-0*", &names[..100]),
        ("vm-12?", &names[120..130]),
        ("vm-149", &names[149..]),
        ("other-*", &[]),
    ] {
        let list = daemon.get(&format!("/vms?name={pattern}")).await;
        assert_eq!(listed(&list), expected, "{pattern}");
    }
}

#[tokio::test]
async fn health_comes_from_the_agent() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let health = daemon.get("/vms/web-1/health").await;
    assert_eq!((health.status, &health.json["status"]), (200, &json!("ok")));
    let hostname = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(health.json["hostname"], hostname);
    assert_eq!(health.json["agent"]["protocol"], 2);
}

#[tokio::test]
async fn status_has_the_base_fields_and_those_of_newer_agents() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let status = daemon.get("/vms/web-1/status").await;
    for field in
        ["uptime_secs", "memory_total_mb", "memory_used_mb", "disk_total_gb", "disk_used_gb"]
    {
        assert!(status.json[field].is_u64(), "{field}: {status:?}");
    }
    for field in ["load", "cpus", "filesystems", "interfaces", "kernel"] {
        assert!(!status.json[field].is_null(), "{field}: {status:?}");
    }
}

#[tokio::test]
async fn the_network_is_reported_as_the_kernel_has_it() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let network = daemon.get("/vms/web-1/network").await;
    let interfaces = network.json["interfaces"].as_array().unwrap().clone();
    let loopback = interfaces.iter().find(|interface| interface["name"] == "lo").unwrap();
    assert!(loopback["addresses"].as_array().unwrap().contains(&json!("127.0.0.1/8")));
    assert!(network.json["routes"].is_array() && network.json["dns"]["servers"].is_array());
    assert_eq!(network.json["hostname"], daemon.get("/vms/web-1/health").await.json["hostname"]);
}

#[tokio::test]
async fn a_program_that_ran_is_a_200_whatever_its_end() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let ran = daemon.exec("web-1", "sh", &["-c", "echo out; echo err >&2; exit 37"]).await;
    assert_eq!(ran.status, 200);
    assert_eq!((&ran.json["exit_code"], &ran.json["stdout"]), (&json!(37), &json!("out\n")));
    assert_eq!(ran.json["stderr"], "err\n");
    assert_eq!(ran.json["outcome"], json!({ "type": "exited", "code": 37 }));
    let killed = daemon.exec("web-1", "sh", &["-c", "kill -SEGV $$"]).await;
    assert_eq!((killed.status, &killed.json["exit_code"]), (200, &json!(139)));
    let body = json!({ "command": "sleep", "args": ["100"], "timeout_ms": 100 });
    let late = daemon.post("/vms/web-1/exec", body).await;
    assert_eq!((late.status, &late.json["exit_code"]), (200, &json!(124)));
    assert_eq!(late.json["outcome"]["type"], "timed_out");
}

#[tokio::test]
async fn a_program_that_never_started_is_a_problem_with_the_reason() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let missing = daemon.exec("web-1", "/nowhere/to/be/found", &[]).await;
    missing.assert_problem(422, "command_not_found");
    assert_eq!(
        (&missing.json["vm"], &missing.json["may_have_executed"]),
        (&json!("web-1"), &json!(false))
    );
    daemon.exec("web-1", "/etc/passwd", &[]).await.assert_problem(422, "command_not_executable");
}

#[tokio::test]
async fn a_slow_program_does_not_delay_another_call() {
    let daemon = TestDaemon::with(|config| config.pool_size = 2).await;
    let _vm =
        FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Agent(agent().unwrap())).unwrap();
    daemon.until_state("web-1", "ready").await;
    let (slow, fast) = tokio::join!(
        async {
            let ran = daemon.exec("web-1", "sleep", &["1"]).await;
            assert_eq!(ran.json["exit_code"], 0);
            tokio::time::Instant::now()
        },
        async {
            daemon.until("/vms/web-1", |vm| vm.json["pool"]["streams"] == 1).await;
            assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
            tokio::time::Instant::now()
        }
    );
    assert!(fast < slow);
}

#[tokio::test]
async fn connections_are_reused() {
    let (daemon, vm) = TestDaemon::with_vm().await;
    let before = vm.accepted();
    for _ in 0..50 {
        assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
    }
    assert!(vm.accepted() <= before + 1, "{} dials for 50 calls", vm.accepted() - before);
}

#[tokio::test]
async fn the_daemon_answers_about_itself_over_both_of_its_sockets() {
    let daemon = TestDaemon::start().await;
    assert_eq!(daemon.get("/healthz").await.json, json!({ "status": "ok" }));
    daemon.until("/readyz", |ready| ready.status == 200).await;
    assert_eq!(daemon.get("/version").await.json["name"], "minionsd");
    let unix = testkit::daemon::http().unix_socket(daemon.unix_socket()).build().unwrap();
    let reply = read(unix.get("http://any.name.will.do/healthz").send().await.unwrap()).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn the_documentation_needs_no_network() {
    let daemon = TestDaemon::start().await;
    let page = daemon.http.get(daemon.url("/docs/")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "{page}");
    for file in ["swagger-ui-bundle.js", "swagger-initializer.js", "swagger-ui.css"] {
        let file = daemon.http.get(daemon.url(&format!("/docs/{file}"))).send().await.unwrap();
        assert_eq!(file.status(), 200);
    }
}

#[tokio::test]
async fn the_dashboard_needs_no_network() {
    let daemon = TestDaemon::start().await;
    for (path, kind) in
        [("/", "text/html"), ("/dashboard.js", "text/javascript"), ("/dashboard.css", "text/css")]
    {
        let file = daemon.http.get(daemon.url(path)).send().await.unwrap();
        assert_eq!(file.status(), 200, "{path}");
        assert!(file.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = file.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert!(!file.text().await.unwrap().contains("://"), "{path} refers to another host");
    }
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let daemon = TestDaemon::start().await;
    let given = daemon.http.get(daemon.url("/vms/nope")).header("x-request-id", "abc-123");
    let given = read(given.send().await.unwrap()).await;
    assert_eq!(
        (&given.json["request_id"], &given.headers["x-request-id"]),
        (&json!("abc-123"), &"abc-123".parse().unwrap())
    );
    let odd = daemon.http.get(daemon.url("/vms/nope")).header("x-request-id", "a b\tc");
    let odd = read(odd.send().await.unwrap()).await;
    assert_eq!(odd.headers["x-request-id"].len(), 36, "{odd:?}");
}
