//! Invalid requests: each results in a precise problem, and none reaches the guest.

use serde_json::json;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts a VM that sends its health reply to every request: a request that reaches it is answered with
/// success.
async fn daemon_with_vm() -> (TestDaemon, FakeVmm) {
    let daemon = TestDaemon::start().await;
    let health = br#"{"status":"ok","uptime_secs":1,"hostname":"h","exit_code":0,"stdout":"","stderr":"","message":"reached"}"#;
    let mut reply = u32::try_from(health.len()).unwrap().to_be_bytes().to_vec();
    reply.extend(health);
    let vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Replies(reply)).unwrap();
    daemon.until_state("web-1", "ready").await;
    (daemon, vm)
}

async fn raw(
    daemon: &TestDaemon,
    method: &str,
    path: &str,
    kind: &str,
    body: impl Into<reqwest::Body>,
) -> Reply {
    let method = method.parse().unwrap();
    let request = daemon.http.request(method, daemon.url(path)).header("content-type", kind);
    read(request.body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_body_that_is_not_json_or_not_declared_as_json_is_rejected() {
    let (daemon, _vm) = daemon_with_vm().await;
    let exec = "/vms/web-1/exec";
    for body in ["", "{", "{\"command\":", "nonsense", "{} {}", "\u{0}"] {
        let reply = raw(&daemon, "POST", exec, "application/json", body).await;
        assert!(matches!(reply.status, 400 | 422), "{body:?}: {reply:?}");
        reply.assert_problem(reply.status, "invalid_request");
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let reply = raw(&daemon, "POST", exec, kind, r#"{"command":"true"}"#).await;
        reply.assert_problem(415, "unsupported_media_type");
    }
    let with_charset = "application/json; charset=utf-8";
    assert_eq!(raw(&daemon, "POST", exec, with_charset, r#"{"command":"true"}"#).await.status, 200);
}

#[tokio::test]
async fn an_invalid_value_names_the_field() {
    let (daemon, _vm) = daemon_with_vm().await;
    for (body, field) in [
        (json!({}), "command"),
        (json!({ "command": 7 }), "command"),
        (json!({ "command": "" }), "command"),
        (json!({ "command": "a\u{0}b" }), "command"),
        (json!({ "command": "a", "args": "b" }), "args"),
        (json!({ "command": "a", "args": ["b", 7] }), "args[1]"),
        (json!({ "command": "a", "args": ["b", "c\u{0}"] }), "args[1]"),
        (json!({ "command": "a", "argv": [] }), "argv"),
        (json!({ "command": "a", "timeout_ms": -1 }), "timeout_ms"),
        (json!({ "command": "a", "timeout_ms": 0 }), "timeout_ms"),
        (json!({ "command": "a", "timeout_ms": 86_400_001 }), "timeout_ms"),
        (json!([]), "body"),
    ] {
        let reply = daemon.post("/vms/web-1/exec", body).await;
        reply.assert_problem(422, "invalid_request").assert_field(field);
    }
}

#[tokio::test]
async fn an_invalid_network_names_the_field() {
    let (daemon, _vm) = daemon_with_vm().await;
    for (ip, gateway, dns, field) in [
        ("10.0.0.2/33", "10.0.0.1", "1.1.1.1", "ip"),
        ("fe80::1/129", "fe80::2", "1.1.1.1", "ip"),
        ("10.0.0.2", "10.0.0.1", "1.1.1.1", "ip"),
        ("224.0.0.1/24", "224.0.0.2", "1.1.1.1", "ip"),
        ("10.0.0.2/16", "10.1.0.1", "1.1.1.1", "gateway"),
        ("10.0.0.2/16", "gateway", "1.1.1.1", "gateway"),
        ("10.0.0.2/16", "10.0.0.2", "1.1.1.1", "gateway"),
        ("10.0.0.2/16", "10.0.0.1", "one.one", "dns[0]"),
    ] {
        let body = json!({ "ip": ip, "gateway": gateway, "dns": [dns] });
        let reply = daemon.put("/vms/web-1/network", body).await;
        reply.assert_problem(422, "invalid_request").assert_field(field);
    }
    let many = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "dns": vec!["1.1.1.1"; 17] });
    let many = daemon.put("/vms/web-1/network", many).await;
    many.assert_problem(422, "invalid_request").assert_field("dns");
    let more = json!({ "ip": "10.0.0.2/16", "gateway": "10.0.0.1", "metric": 7 });
    let more = daemon.put("/vms/web-1/network", more).await;
    more.assert_problem(422, "invalid_request").assert_field("metric");
}

#[tokio::test]
async fn an_invalid_network_with_interfaces_names_the_field() {
    let (daemon, _vm) = daemon_with_vm().await;
    let eth0 = json!({ "name": "eth0", "addresses": ["10.0.0.2/16"], "gateways": ["10.9.0.1"] });
    let route = json!({ "to": "10.1.0.0/16", "via": "10.0.0.1" });
    for (body, field) in [
        (json!({ "interfaces": [eth0] }), "interfaces[0].gateways[0]"),
        (json!({ "interfaces": [{ "nam": "eth0" }] }), "interfaces[0].nam"),
        (json!({ "interfaces": [{}], "routes": vec![route; 1000] }), "routes"),
        (json!({ "interfaces": [{}], "mtu": 100_000 }), "mtu"),
        (json!({ "interfaces": [{}], "verify": ["everything"] }), "verify[0]"),
        (json!({ "hostname": "a b" }), "hostname"),
        (json!({ "dns": ["1.1.1.1"], "search": ["a b"] }), "search[0]"),
        (json!({ "hostname": "web-1", "confirm_within_ms": 1 }), "confirm_within_ms"),
        (json!({}), "ip"),
    ] {
        let reply = daemon.put("/vms/web-1/network", body).await;
        reply.assert_problem(422, "invalid_request").assert_field(field);
    }
    let confirm = daemon.post("/vms/web-1/network/confirm", json!({ "change": "x" })).await;
    confirm.assert_problem(422, "invalid_request");
}

#[tokio::test]
async fn an_invalid_vm_name_is_never_looked_up() {
    let (daemon, _vm) = daemon_with_vm().await;
    for name in
        ["..%2f", "..%2f..%2fetc%2fpasswd", "%2e%2e%2fx", ".hidden", "a%20b", "a%00", "%ff", "-x"]
    {
        let reply = daemon.get(&format!("/vms/{name}/health")).await;
        reply.assert_problem(400, "invalid_request").assert_field("vm");
    }
    let long = "x".repeat(64);
    daemon.get(&format!("/vms/{long}")).await.assert_problem(400, "invalid_request");
    daemon.get("/vms/web-2").await.assert_problem(404, "vm_not_found");
}

#[tokio::test]
async fn the_error_of_a_wrong_method_names_the_right_ones() {
    let daemon = TestDaemon::start().await;
    for (method, path, allow) in [
        ("DELETE", "/vms", "GET,HEAD"),
        ("PUT", "/vms/x/exec", "GET,HEAD,POST"),
        ("POST", "/vms/x/network", "GET,HEAD,PUT"),
    ] {
        let reply = raw(&daemon, method, path, "application/json", "").await;
        reply.assert_problem(405, "method_not_allowed");
        let mut allowed: Vec<_> = reply.headers["allow"].to_str().unwrap().split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow);
        assert!(reply.json["detail"].as_str().unwrap().contains("use "), "{reply:?}");
    }
    daemon.get("/nowhere").await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn a_body_too_long_for_the_limit_or_for_a_frame_is_rejected() {
    let (daemon, _vm) = daemon_with_vm().await;
    let huge = json!({ "command": "true", "args": ["x".repeat(9 * 1024 * 1024)] });
    for path in ["/vms/web-1/exec", "/exec"] {
        daemon.post(path, huge.clone()).await.assert_problem(413, "payload_too_large");
    }
    let big = json!({ "ip": "x".repeat(3 * 1024 * 1024), "gateway": "", "dns": [] });
    daemon.put("/vms/web-1/network", big).await.assert_problem(413, "payload_too_large");
    for length in [1024 * 1024, 3 * 1024 * 1024] {
        let long = json!({ "command": "true", "args": ["x".repeat(length)] });
        let long = daemon.post("/vms/web-1/exec", long).await;
        long.assert_problem(422, "argument_list_too_long");
        assert_eq!(long.json["may_have_executed"], false);
    }
    assert_eq!(daemon.get("/vms/web-1/health").await.status, 200);
}

#[tokio::test]
async fn an_invalid_query_parameter_is_named() {
    let (daemon, _vm) = daemon_with_vm().await;
    for (query, field) in [
        ("timeout_ms=0", "timeout_ms"),
        ("timeout_ms=soon", "timeout_ms"),
        ("timeout_ms=99999999999", "timeout_ms"),
        ("timeout=5", "timeout"),
    ] {
        let reply = daemon.get(&format!("/vms/web-1/health?{query}")).await;
        reply.assert_problem(400, "invalid_request").assert_field(field);
    }
}

#[tokio::test]
async fn a_foreign_host_name_is_rejected() {
    let (daemon, _vm) = daemon_with_vm().await;
    for host in ["evil.example", "evil.example:7070", "localhost.evil.example", "169.254.169.254"] {
        let request = daemon.http.get(daemon.url("/vms")).header("host", host);
        read(request.send().await.unwrap()).await.assert_problem(403, "forbidden");
    }
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1:7070", "[::1]:7070"] {
        let request = daemon.http.get(daemon.url("/vms")).header("host", host);
        assert_eq!(read(request.send().await.unwrap()).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn a_request_with_no_host_or_with_two_is_rejected() {
    let daemon = TestDaemon::start().await;
    for head in ["GET /vms HTTP/1.1\r\n", "GET /vms HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n"]
    {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    }
}

#[tokio::test]
async fn a_body_nested_too_deeply_is_rejected_in_any_field() {
    let (daemon, _vm) = daemon_with_vm().await;
    let deep = "[".repeat(1_000) + &"]".repeat(1_000);
    for body in [
        format!(r#"{{"command":"true","unknown":{deep}}}"#),
        format!(r#"{{"command":"true","args":{deep}}}"#),
        deep,
    ] {
        let reply = raw(&daemon, "POST", "/vms/web-1/exec", "application/json", body).await;
        reply.assert_problem(400, "invalid_request");
        let detail = reply.json["detail"].as_str().unwrap();
        assert!(detail.contains("127 deep"), "{detail}");
    }
}
