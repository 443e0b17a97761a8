//! Requests from pages of other origins are rejected. Tested with forged headers; `chromium` has a real
//! browser.

use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};

const JSON: (&str, &str) = ("content-type", "application/json");

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Daemon with a VM, and a file that a program in the VM would create.
struct Target {
    daemon: TestDaemon,
    marker: PathBuf,
    _vm: FakeVmm,
}

impl Target {
    async fn start() -> Self {
        let daemon = TestDaemon::start().await;
        let vm = Behaviour::Agent(agent().unwrap());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", vm).unwrap();
        daemon.until_state("web-1", "ready").await;
        let marker = daemon.sockets().join("marker");
        Self { daemon, marker, _vm: vm }
    }

    /// Returns a body that runs a program, if the request is accepted.
    fn exec(&self) -> String {
        json!({ "command": "touch", "args": [self.marker] }).to_string()
    }

    async fn ask(&self, method: &str, path: &str, headers: Headers<'_>) -> Reply {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.daemon.http.request(method.clone(), self.daemon.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method != "GET" {
            request = request.body(self.exec());
        }
        let reply = read(request.send().await.unwrap()).await;
        assert_for_browsers(&reply);
        reply
    }

    #[track_caller]
    fn assert_nothing_ran(&self, about: &str) {
        assert!(!self.marker.exists(), "{about}: the program ran");
    }
}

/// Asserts the headers that every reply must and must not have.
#[track_caller]
fn assert_for_browsers(reply: &Reply) {
    let cors = |name: &&str| name.starts_with("access-control-");
    let cors: Vec<_> = reply.headers.keys().map(|name| name.as_str()).filter(cors).collect();
    assert!(cors.is_empty(), "{cors:?}");
    let header = |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok());
    assert!(
        header("content-security-policy").is_some_and(|csp| csp.contains("default-src 'none'")),
        "{reply:?}"
    );
    assert_eq!(header("x-content-type-options"), Some("nosniff"), "{reply:?}");
    assert_eq!(header("cross-origin-resource-policy"), Some("same-origin"), "{reply:?}");
}

#[tokio::test]
async fn a_forged_request_is_rejected() {
    let target = Target::start().await;
    let same = target.daemon.url("");
    let other_port = "http://127.0.0.1:1";
    let by_name = format!("http://localhost:{}", target.daemon.address.port());
    let cases: [(&str, Headers<'_>, u16); 14] = [
        ("another host", &[JSON, ("host", "evil.example")], 403),
        ("another host with our port", &[JSON, ("host", "evil.example:7070")], 403),
        ("rebound", &[JSON, ("host", "evil.example"), ("origin", "http://evil.example")], 403),
        ("our name in theirs", &[JSON, ("host", "localhost.evil.example")], 403),
        ("another origin", &[JSON, ("origin", "http://evil.example")], 403),
        ("no origin", &[JSON, ("origin", "null")], 403),
        ("another port", &[JSON, ("origin", other_port)], 403),
        ("another of our names", &[JSON, ("origin", &by_name)], 403),
        ("two origins", &[JSON, ("origin", &same), ("origin", "http://evil.example")], 403),
        ("same site", &[JSON, ("sec-fetch-site", "same-site")], 403),
        ("cross-site", &[JSON, ("sec-fetch-site", "cross-site")], 403),
        (
            "cross-site with our origin",
            &[JSON, ("sec-fetch-site", "cross-site"), ("origin", &same)],
            403,
        ),
        ("text", &[("content-type", "text/plain")], 415),
        ("a form", &[("content-type", "application/x-www-form-urlencoded")], 415),
    ];
    for (about, headers, status) in cases {
        for (method, path) in [
            ("POST", "/vms/web-1/exec"),
            ("PUT", "/vms/web-1/network"),
            ("DELETE", "/vms/web-1"),
            ("GET", "/vms/web-1/health"),
        ] {
            if status == 415 && matches!(method, "DELETE" | "GET") {
                continue; // No body is read.
            }
            let reply = target.ask(method, path, headers).await;
            let code = if status == 403 { "forbidden" } else { "unsupported_media_type" };
            assert_eq!((reply.status, &reply.json["code"]), (status, &json!(code)), "{about}");
            reply.assert_problem(status, code);
            target.assert_nothing_ran(about);
        }
    }
    // The same request by a page of the daemon, and by a client that is not a browser.
    for headers in [&[JSON, ("origin", &same), ("sec-fetch-site", "same-origin")][..], &[JSON]] {
        assert_eq!(target.ask("POST", "/vms/web-1/exec", headers).await.status, 200);
        assert!(target.marker.exists());
        std::fs::remove_file(&target.marker).unwrap();
    }
}

const DASHBOARD: (&str, &str) = ("origin", "https://dash.example:8443");

#[tokio::test]
async fn a_configured_origin_is_allowed_and_similar_ones_are_not() {
    let daemon = TestDaemon::with(|config| config.allowed_origins = vec![DASHBOARD.1.into()]).await;
    let vm = Behaviour::Agent(agent().unwrap());
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", vm).unwrap();
    daemon.until_state("web-1", "ready").await;
    let ask = async |method: Method, headers: Headers<'_>| {
        let mut request = daemon.http.request(method, daemon.url("/vms/web-1/exec"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.body(r#"{"command":"true"}"#).send().await.unwrap()).await
    };
    let cross = ("sec-fetch-site", "cross-site");
    let preflight = [
        DASHBOARD,
        cross,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let allowed = |reply: &Reply| {
        let header = reply.headers.get("access-control-allow-origin");
        header.map(|origin| origin.to_str().unwrap().to_owned())
    };
    let reply = ask(Method::OPTIONS, &preflight).await;
    assert_eq!((reply.status, allowed(&reply).as_deref()), (200, Some(DASHBOARD.1)));
    // What pages need for a file: conditions and ranges in requests, versions and metadata in replies.
    let list = |reply: &Reply, name: &str| reply.headers[name].to_str().unwrap().to_owned();
    let sent = list(&reply, "access-control-allow-headers");
    assert!(sent.contains("if-match") && sent.contains("range"), "{sent}");
    let reply = ask(Method::POST, &[JSON, DASHBOARD, cross]).await;
    assert_eq!((reply.status, allowed(&reply).as_deref()), (200, Some(DASHBOARD.1)));
    let shown = list(&reply, "access-control-expose-headers");
    assert!(shown.contains("etag") && shown.contains("x-minions-file"), "{shown}");
    let get = daemon.http.get(daemon.url("/vms")).header(cross.0, cross.1);
    let reply =
        read(get.try_clone().unwrap().header(DASHBOARD.0, DASHBOARD.1).send().await.unwrap()).await;
    assert_eq!((reply.status, allowed(&reply).as_deref()), (200, Some(DASHBOARD.1)));
    assert_eq!(read(get.send().await.unwrap()).await.status, 403);
    // Pages of that origin can also read errors.
    let reply = ask(Method::POST, &[DASHBOARD, cross]).await;
    assert_eq!((reply.status, allowed(&reply).as_deref()), (415, Some(DASHBOARD.1)));
    for origin in
        ["https://dash.example", "http://dash.example:8443", "https://a.dash.example:8443", "null"]
    {
        for headers in [&[JSON, ("origin", origin)][..], &[JSON, DASHBOARD, ("origin", origin)]] {
            let reply = ask(Method::POST, headers).await;
            assert_eq!((reply.status, allowed(&reply)), (403, None), "{origin}");
        }
        let reply = ask(Method::OPTIONS, &[("origin", origin), preflight[2]]).await;
        assert_eq!((reply.status, allowed(&reply)), (403, None), "{origin}");
    }
}

#[tokio::test]
async fn a_websocket_from_another_origin_is_rejected_on_any_path() {
    let target = Target::start().await;
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for path in ["/vms/web-1/exec", "/vms", "/", "/docs/", "/no/such/path"] {
        for from in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("host", "evil.example"),
        ] {
            let headers: Vec<_> = upgrade.into_iter().chain([from]).collect();
            target.ask("GET", path, &headers).await.assert_problem(403, "forbidden");
        }
    }
}

#[tokio::test]
async fn a_page_that_rebinds_its_name_reads_nothing() {
    let target = Target::start().await;
    for path in ["/vms", "/whoami", "/docs/", "/openapi.json", "/healthz", "/no/such/path"] {
        let reply = target.ask("GET", path, &[("host", "evil.example")]).await;
        reply.assert_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_link_to_pages_but_not_embed_or_read() {
    let target = Target::start().await;
    let link = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    let picture = [("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
    let frame = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
    for site in ["cross-site", "same-site"] {
        let from =
            |how: [(&'static str, &'static str); 2]| [("sec-fetch-site", site), how[0], how[1]];
        for path in ["/", "/docs/"] {
            assert_eq!(target.ask("GET", path, &from(link)).await.status, 200, "{path}");
            for how in [picture, frame] {
                target.ask("GET", path, &from(how)).await.assert_problem(403, "forbidden");
            }
        }
        for path in ["/vms", "/vms/web-1/health", "/vms/web-1/status", "/dashboard.js", "/healthz"]
        {
            for how in [link, picture, frame] {
                target.ask("GET", path, &from(how)).await.assert_problem(403, "forbidden");
            }
            assert_eq!(target.ask("HEAD", path, &[("sec-fetch-site", site)]).await.status, 403);
        }
    }
    // A page of the daemon, the address bar, and a client that is not a browser.
    for headers in [&[("sec-fetch-site", "same-origin")][..], &[("sec-fetch-site", "none")], &[]] {
        assert_eq!(target.ask("GET", "/vms/web-1/health", headers).await.status, 200);
    }
}

#[tokio::test]
async fn a_host_with_user_information_is_rejected() {
    let target = Target::start().await;
    for host in ["evil.example@localhost", "localhost@localhost", "@localhost"] {
        let reply = target.ask("GET", "/vms", &[("host", host)]).await;
        reply.assert_problem(400, "invalid_request").assert_field("Host");
    }
}

#[tokio::test]
async fn every_reply_has_the_headers_that_restrict_browsers() {
    let target = Target::start().await;
    let evil = ("origin", "http://evil.example");
    let preflight = ("access-control-request-method", "POST");
    let cases: [(&str, &str, Headers<'_>, u16); 9] = [
        ("GET", "/vms", &[], 200),
        ("GET", "/vms", &[evil], 403),
        ("GET", "/docs/", &[], 200),
        ("GET", "/docs/swagger-ui.css", &[], 200),
        ("GET", "/no/such/path", &[], 404),
        ("DELETE", "/vms", &[], 405),
        ("GET", "/vms", &[("authorization", "Bearer wrong")], 401),
        ("POST", "/vms/web-1/exec", &[], 415),
        ("OPTIONS", "/vms/web-1/exec", &[evil, preflight], 403),
    ];
    for (method, path, headers, status) in cases {
        assert_eq!(target.ask(method, path, headers).await.status, status, "{method} {path}");
    }
}
