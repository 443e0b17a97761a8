//! Edge cases of HTTP that matter to proxies, generated clients and curl.

use serde_json::{Value, json};
use testkit::daemon::{DEADLINE, TestDaemon, read};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Covers every operation of the document, with a query parameter that no route has.
#[tokio::test]
async fn an_unknown_query_parameter_is_named_and_rejected_on_every_route() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let document: Value = serde_json::from_str(&minionsd::openapi_json()).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = path.replace("{vm}", "web-1").replace("{id}", "0");
            let url = daemon.url(&format!("{path}?ready=1"));
            let request = daemon.http.request(method.to_uppercase().parse().unwrap(), url);
            let request = if method == "get" { request } else { request.json(&json!({})) };
            let reply = read(request.send().await.unwrap()).await;
            reply.assert_problem(400, "invalid_request").assert_field("ready");
            let detail = reply.json["detail"].as_str().unwrap();
            assert!(detail.contains("\"ready\" is not a query parameter"), "{path}: {detail}");
        }
    }
    assert_eq!(daemon.get("/vms/web-1/health?timeout_ms=1000").await.status, 200);
}

/// RFC 9110, 10.1.1: the length is in the head, so the reply can be sent before the body.
#[tokio::test]
async fn a_body_with_a_content_length_over_the_limit_is_rejected_unread() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    for (path, method, length) in
        [("/vms/web-1/exec", "POST", 100_000_000), ("/vms/web-1/network", "PUT", 3_000_000)]
    {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\
             Expect: 100-continue\r\nConnection: close\r\n\r\n",
            daemon.bearer()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut reply = vec![0; 12];
        timeout(DEADLINE, stream.read_exact(&mut reply)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&reply), "HTTP/1.1 413", "{path}");
    }
}

/// Many clients send all of a body before they read the answer. Without the connection, they could not read it.
#[tokio::test]
async fn a_client_that_sends_all_of_a_refused_body_receives_the_answer() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let daemon = TestDaemon::start().await;
    for path in ["/vms/none/files?path=/tmp/a", "/vms/none/exec", "/none"] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {LENGTH}\r\n\
             Connection: close\r\n\r\n",
            daemon.bearer()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let body = vec![b'x'; LENGTH];
        timeout(DEADLINE, stream.write_all(&body)).await.unwrap().expect(path);
        let mut reply = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut reply)).await.unwrap().expect(path);
        assert!(reply.starts_with("HTTP/1.1 40"), "{path}: {reply}");
    }
}

#[tokio::test]
async fn a_caller_that_does_not_accept_lines_gets_a_result() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    for (accept, kind) in [
        ("application/json, application/x-ndjson;q=0", "application/json"),
        ("application/x-ndjson;q=0.2, application/json;q=0.3", "application/json"),
        ("*/*", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("application/json;q=0.5, application/x-ndjson", "application/x-ndjson"),
    ] {
        let body = json!({ "command": "true" });
        let request = daemon.http.post(daemon.url("/vms/web-1/exec")).json(&body);
        let reply = request.header("accept", accept).send().await.unwrap();
        assert_eq!(reply.headers()["content-type"], kind, "{accept}");
    }
}

#[tokio::test]
async fn a_proxy_is_told_not_to_buffer_streams() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let events = daemon.http.get(daemon.url("/events")).send().await.unwrap();
    assert_eq!(events.headers()["x-accel-buffering"], "no");
    let body = json!({ "command": "true" });
    let lines = daemon.http.post(daemon.url("/vms/web-1/exec")).json(&body);
    let lines = lines.header("accept", "application/x-ndjson").send().await.unwrap();
    assert_eq!(lines.headers()["x-accel-buffering"], "no");
}

/// Under the path prefix of a reverse proxy, only relative links lead back to the daemon.
#[tokio::test]
async fn pages_have_no_absolute_links() {
    let daemon = TestDaemon::start().await;
    let client = testkit::daemon::http().redirect(reqwest::redirect::Policy::none());
    let client = client.timeout(DEADLINE).build().unwrap();
    let docs = client.get(daemon.url("/docs")).send().await.unwrap();
    assert_eq!(
        (docs.status().as_u16() / 100, &docs.headers()["location"]),
        (3, &"docs/".parse().unwrap())
    );
    for path in ["/", "/dashboard.js", "/docs/", "/docs/swagger-initializer.js"] {
        let page = client.get(daemon.url(path)).send().await.unwrap().text().await.unwrap();
        for absolute in
            ["\"/vms", "`/vms", "\"/events", "\"/dashboard", "\"/docs", "\"/openapi.json"]
        {
            assert!(!page.contains(absolute), "{path} contains {absolute}");
        }
    }
    let initializer = client.get(daemon.url("/docs/swagger-initializer.js")).send().await.unwrap();
    assert!(initializer.text().await.unwrap().contains("../openapi.json"));
}

/// Covers the exceptions that docs/API.md names: requests that the HTTP parser refuses.
#[tokio::test]
async fn only_requests_that_the_http_parser_refuses_have_no_problem() {
    let daemon = TestDaemon::start().await;
    let many: String = (0..101).map(|n| format!("X{n}: a\r\n")).collect();
    for (request, status, has_problem) in [
        ("NONSENSE\r\n\r\n".to_owned(), 400, false),
        (format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(70_000)), 414, false),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431, false),
        ("GET /vms HTTP/1.1\r\n\r\n".to_owned(), 400, true),
        (
            "GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(),
            404,
            true,
        ),
    ] {
        let mut stream = TcpStream::connect(daemon.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = vec![0; 512];
        let len = timeout(DEADLINE, stream.read(&mut head)).await.unwrap().unwrap();
        let head = String::from_utf8_lossy(&head[..len]).to_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("application/problem+json"), has_problem, "{head}");
        assert_eq!(head.contains("content-length: 0"), !has_problem, "{head}");
    }
}
