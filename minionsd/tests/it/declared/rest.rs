//! Declarations, pools and leases over REST, without a guest.

use serde_json::{Value, json};
use testkit::daemon::{Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm};

fn lan() -> Value {
    json!({ "subnet": "10.0.0.0/24", "range": "10.0.0.2-10.0.0.9", "gateway": "10.0.0.1" })
}

async fn send(
    daemon: &TestDaemon,
    method: reqwest::Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Reply {
    let mut request = daemon.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    read(request.send().await.unwrap()).await
}

#[tokio::test]
async fn a_declaration_is_changed_only_in_the_revision_that_the_caller_knows() {
    let daemon = TestDaemon::start().await;
    let put = reqwest::Method::PUT;
    let first = daemon.put("/declarations/web-%2A", json!({ "labels": { "app": "web" } })).await;
    assert_eq!(
        (first.status, &first.headers["etag"]),
        (200, &"\"1\"".parse().unwrap()),
        "{first:?}"
    );
    assert_eq!(first.json["declaration"]["name"], "web-*");
    let again = daemon.put("/declarations/web-%2A", json!({ "labels": { "app": "web" } })).await;
    assert_eq!(again.headers["etag"], "\"1\"", "nothing changed");
    let body = || Some(json!({ "hostname": "{vm}" }));
    let path = "/declarations/web-%2A";
    for headers in [[("if-match", "\"7\"")], [("if-none-match", "*")]] {
        let refused = send(&daemon, put.clone(), path, &headers, body()).await;
        refused.assert_problem(412, "revision_changed");
    }
    for headers in [[("if-match", "1")], [("if-none-match", "\"1\"")]] {
        let refused = send(&daemon, put.clone(), path, &headers, body()).await;
        refused.assert_problem(400, "invalid_request");
    }
    let changed = send(&daemon, put, path, &[("if-match", "\"1\"")], body()).await;
    assert_eq!(changed.headers["etag"], "\"2\"");
    assert_eq!(
        daemon.get(path).await.json["declaration"]["labels"],
        Value::Null,
        "it was replaced"
    );
    let delete = reqwest::Method::DELETE;
    let refused = send(&daemon, delete.clone(), path, &[("if-match", "\"1\"")], None).await;
    refused.assert_problem(412, "revision_changed");
    assert_eq!(send(&daemon, delete, path, &[("if-match", "\"2\"")], None).await.status, 200);
    daemon.get(path).await.assert_problem(404, "declaration_not_found");
    let list = daemon.get("/declarations").await.json;
    assert_eq!(list, json!({ "declarations": [], "revision": 3, "persistent": false }));
}

#[tokio::test]
async fn each_of_many_changes_at_the_same_time_gets_the_reply_of_its_own_change() {
    let daemon = TestDaemon::start().await;
    for round in 0..10 {
        let put = async |at: usize| {
            let label = format!("{round}-{at}");
            let body = json!({ "labels": { "writer": label } });
            let reply = daemon.put("/declarations/a", body).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            assert_eq!(reply.json["declaration"]["labels"]["writer"], json!(label));
            reply.headers["etag"].to_str().unwrap().to_owned()
        };
        let tags = futures_util::future::join_all((0..32).map(put)).await;
        let different: std::collections::BTreeSet<_> = tags.iter().collect();
        assert_eq!(different.len(), tags.len(), "{tags:?}");
    }
}

#[tokio::test]
async fn wrong_items_are_refused_by_field_and_a_refused_apply_changes_nothing() {
    let daemon = TestDaemon::start().await;
    for (path, body, field) in [
        ("/declarations/a", json!({ "name": "b" }), "name"),
        ("/declarations/a%20b", json!({}), "name"),
        ("/declarations/a", json!({ "netwrk": {} }), "netwrk"),
        ("/declarations/a", json!({ "network": { "pool": "nope" } }), "network.pool"),
        ("/declarations/a", json!({ "hostname": "a_b" }), "hostname"),
        ("/pools/lan", json!({}), "subnet"),
        ("/pools/lan", json!({ "subnet": "10.0.0.0/24", "gateway": "10.1.0.1" }), "gateway"),
        ("/pools/lan", json!({ "name": "wan", "subnet": "10.0.0.0/24" }), "name"),
    ] {
        let reply = daemon.put(path, body).await;
        reply.assert_problem(422, "invalid_request");
        assert_eq!(reply.json["field"], field, "{reply:?}");
    }
    let body = json!({
        "pools": [{ "name": "lan", "subnet": "10.0.0.0/24" }],
        "declarations": [{ "name": "a" }, { "name": "b", "network": { "mtu": 1 } }],
    });
    let reply = daemon.post("/declarations", body).await;
    reply.assert_problem(422, "invalid_request");
    assert_eq!(reply.json["field"], "declarations[1].network.mtu");
    assert_eq!(daemon.get("/pools").await.json, json!({ "pools": [] }));
    assert_eq!(daemon.get("/declarations").await.json["revision"], 0);
    for path in ["/pools/nope", "/pools/nope/leases"] {
        daemon.get(path).await.assert_problem(404, "pool_not_found");
    }
}

#[tokio::test]
async fn an_address_is_reserved_listed_and_released() {
    let daemon = TestDaemon::start().await;
    let pool = daemon.put("/pools/lan", lan()).await;
    assert_eq!((&pool.json["free"], &pool.json["leased"]), (&json!(8), &json!(0)), "{pool:?}");
    let reserved = daemon.post("/pools/lan/leases", json!({ "vm": "later" })).await;
    assert_eq!(reserved.json, json!({ "address": "10.0.0.2", "vm": "later", "kind": "reserved" }));
    let taken = json!({ "vm": "other", "address": "10.0.0.2" });
    daemon.post("/pools/lan/leases", taken).await.assert_problem(409, "address_conflict");
    daemon.post("/pools/lan/leases", json!({})).await.assert_problem(422, "invalid_request");
    let leases = daemon.get("/pools/lan/leases").await.json;
    assert_eq!(leases["leases"], json!([reserved.json]));
    assert_eq!(daemon.get("/pools").await.json["pools"][0]["free"], 7);
    let delete = reqwest::Method::DELETE;
    send(&daemon, delete.clone(), "/pools/lan", &[], None)
        .await
        .assert_problem(409, "pool_conflict");
    let released = send(&daemon, delete.clone(), "/pools/lan/leases/10.0.0.2", &[], None).await;
    assert_eq!(released.json, reserved.json);
    assert_eq!(send(&daemon, delete, "/pools/lan", &[], None).await.status, 200);
}

#[tokio::test]
async fn vms_are_selected_by_label_state_and_name() {
    let daemon = TestDaemon::start().await;
    let _vms = ["web-1", "web-2", "db-1"]
        .map(|name| FakeVmm::start(daemon.sockets(), name, Behaviour::Refuses).unwrap());
    daemon
        .until("/vms", |list| list.json["vms"].as_array().is_some_and(|vms| vms.len() == 3))
        .await;
    // The state of a VM without an agent changes once, after three probes.
    daemon.until_state("db-1", "unreachable").await;
    daemon.put("/declarations/web-%2A", json!({ "labels": { "app": "web", "env": "test" } })).await;
    daemon.put("/declarations/web-2", json!({ "labels": { "env": "prod" } })).await;
    for (query, names) in [
        ("", &["db-1", "web-1", "web-2"][..]),
        ("?label=app%3Dweb", &["web-1", "web-2"]),
        ("?label=app%3Dweb,env!%3Dprod", &["web-1"]),
        ("?label=!app", &["db-1"]),
        ("?name=*-1", &["db-1", "web-1"]),
        ("?name=*-1&label=env", &["web-1"]),
        ("?state=ready", &[]),
        ("?state=unreachable&name=db-1", &["db-1"]),
    ] {
        let list = daemon.get(&format!("/vms{query}")).await;
        let vms = list.json["vms"].as_array().unwrap();
        let found: Vec<_> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{query}");
    }
    assert_eq!(
        daemon.get("/vms/web-2").await.json["labels"],
        json!({ "app": "web", "env": "prod" })
    );
    assert_eq!(daemon.get("/vms/web-2").await.json["configured"], Value::Null, "only labels");
    for (query, field) in
        [("?label=a%20b", "label"), ("?state=odd", "state"), ("?name=a%20b", "name")]
    {
        let reply = daemon.get(&format!("/vms{query}")).await;
        reply.assert_problem(400, "invalid_request");
        assert_eq!(reply.json["field"], field, "{reply:?}");
    }
    daemon
        .post("/vms/db-1/config/apply", json!({}))
        .await
        .assert_problem(404, "declaration_not_found");
}

#[tokio::test]
async fn a_configuration_can_be_read_before_the_vm_exists() {
    let daemon = TestDaemon::start().await;
    daemon.put("/pools/lan", lan()).await;
    let declaration = json!({ "hostname": "{vm}", "network": { "pool": "lan" } });
    daemon.put("/declarations/%2A", declaration).await;
    let config = daemon.get("/vms/later/config").await.json;
    assert_eq!((&config["exists"], &config["generation"]), (&json!(false), &json!(2)), "{config}");
    assert_eq!(config["network"], Value::Null, "it has no address yet");
    daemon.post("/pools/lan/leases", json!({ "vm": "later", "address": "10.0.0.7" })).await;
    let config = daemon.get("/vms/later/config").await.json;
    assert_eq!(config["network"]["interfaces"][0]["addresses"], json!(["10.0.0.7/24"]), "{config}");
    assert_eq!(config["network"]["hostname"], "later");
    let odd = daemon.get("/vms/a_b/config").await.json;
    assert!(odd["problem"].is_null(), "no address yet: {odd}");
    daemon.post("/pools/lan/leases", json!({ "vm": "a_b" })).await;
    let odd = daemon.get("/vms/a_b/config").await.json;
    assert!(odd["problem"].as_str().unwrap().contains("hostname"), "{odd}");
}
