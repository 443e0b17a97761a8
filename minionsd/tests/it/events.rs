//! Events about VMs, as received by a reader of `GET /events`.

use reqwest::Response;
use serde_json::{Value, json};
use testkit::daemon::{DEADLINE, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::wire::framed;
use tokio::time::timeout;

fn well() -> Behaviour {
    Behaviour::Agent(agent().unwrap())
}

fn health(boot_id: &str, instance_id: &str) -> Vec<u8> {
    framed(json!({
        "status": "ok", "uptime_secs": 7, "hostname": "h",
        "agent": {
            "name": "a", "version": "1", "protocol": 2, "features": [],
            "boot_id": boot_id, "instance_id": instance_id,
        },
    }))
}

/// Reader of events.
struct Reader {
    response: Response,
    text: String,
    last: Option<String>,
}

impl Reader {
    async fn of(daemon: &TestDaemon, query: &str, last: Option<&str>) -> Self {
        let mut request = daemon.http.get(daemon.url(&format!("/events{query}")));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        // From now on the reader receives all events.
        let greeting = response.chunk().await.unwrap().unwrap();
        let text = String::from_utf8(greeting.to_vec()).unwrap();
        Self { response, text, last: last.map(str::to_owned) }
    }

    /// Returns the `event:` field and the data of the next message that is not a comment.
    async fn next(&mut self) -> (String, Value) {
        loop {
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = message.lines();
                    lines.find_map(|line| line.strip_prefix(name)).map(str::to_owned)
                };
                let (event, data, id) = (field("event: "), field("data: "), field("id: "));
                self.text = rest.to_owned();
                self.last = id.or(self.last.take());
                if let (Some(event), Some(data)) = (event, data) {
                    return (event, serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = timeout(DEADLINE, self.response.chunk()).await.unwrap().unwrap();
            self.text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
    }

    async fn until(&mut self, event: &str) -> Value {
        loop {
            let (kind, data) = self.next().await;
            if kind == event {
                return data;
            }
        }
    }
}

#[tokio::test]
async fn events_of_a_vm_arrive_in_order_and_with_reasons() {
    let daemon = TestDaemon::start().await;
    let mut reader = Reader::of(&daemon, "", None).await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    let (kind, found) = reader.next().await;
    assert_eq!((kind.as_str(), &found["vm"]), ("vm.found", &json!("web-1")));
    assert_eq!(found["type"], "vm.found");
    let (kind, ready) = reader.next().await;
    assert_eq!(kind, "vm.state");
    assert_eq!(
        (&ready["before"], &ready["state"], &ready["cause"]),
        (&json!("connecting"), &json!("ready"), &json!("answered"))
    );
    let incarnation = &ready["incarnation"];
    assert_eq!(incarnation["vmm_pid"], std::process::id());
    assert!(incarnation["inode"].as_u64() > Some(0) && incarnation["boot_id"].is_string());
    let path = vm.path().to_owned();
    vm.crash();
    let stale = reader.until("vm.state").await;
    assert_eq!(
        (&stale["state"], &stale["cause"], &stale["reason"]["failure"]),
        (&json!("stale"), &json!("no_listener"), &json!("no_listener"))
    );
    std::fs::remove_file(path).unwrap();
    assert_eq!(reader.until("vm.gone").await["vm"], "web-1");
}

#[tokio::test]
async fn a_replaced_vm_a_reboot_and_an_agent_restart_are_distinguished() {
    let daemon = TestDaemon::start().await;
    let mut reader = Reader::of(&daemon, "?vm=web-1", None).await;
    let replies = |boot, instance| Behaviour::Replies(health(boot, instance));
    let vm = FakeVmm::start(daemon.sockets(), "web-1", replies("b1", "i1")).unwrap();
    reader.until("vm.state").await;
    vm.switch_to(replies("b1", "i2"));
    let restarted = reader.until("agent.restarted").await;
    assert_eq!(restarted["incarnation"]["instance_id"], "i2");
    vm.switch_to(replies("b2", "i3"));
    assert_eq!(reader.until("vm.rebooted").await["incarnation"]["boot_id"], "b2");
    let other = replies("b3", "i4");
    let other = FakeVmm::start_as(daemon.sockets(), "other", other, "vmm").unwrap();
    std::fs::rename(other.path(), vm.path()).unwrap();
    // The reader has not asked for events of the VM `other`.
    let (kind, replaced) = reader.next().await;
    assert_eq!((kind.as_str(), &replaced["vm"]), ("vm.replaced", &json!("web-1")));
    assert_ne!(replaced["incarnation"]["inode"], restarted["incarnation"]["inode"]);
    assert_eq!(reader.until("vm.state").await["incarnation"]["boot_id"], "b3");
}

#[tokio::test]
async fn a_reboot_of_a_guest_with_a_base_agent_is_detected_by_its_uptime() {
    let daemon = TestDaemon::start().await;
    let up = |secs: u64| {
        Behaviour::Replies(framed(json!({ "status": "ok", "uptime_secs": secs, "hostname": "h" })))
    };
    let mut reader = Reader::of(&daemon, "", None).await;
    let vm = FakeVmm::start(daemon.sockets(), "web-1", up(100)).unwrap();
    reader.until("vm.state").await;
    vm.switch_to(up(3));
    reader.until("vm.rebooted").await;
}

#[tokio::test]
async fn a_reader_that_reconnects_continues_after_its_last_event() {
    let daemon = TestDaemon::start().await;
    let mut reader = Reader::of(&daemon, "", None).await;
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", well()).unwrap();
    reader.until("vm.found").await;
    let last = reader.last.clone().unwrap();
    drop(reader);
    daemon.until_state("web-1", "ready").await;
    let mut reader = Reader::of(&daemon, "", Some(&last)).await;
    let (kind, ready) = reader.next().await;
    assert_eq!((kind.as_str(), &ready["state"]), ("vm.state", &json!("ready")));
}

#[tokio::test]
async fn a_position_of_another_daemon_process_results_in_a_reset() {
    let daemon = TestDaemon::start().await;
    let mut reader = Reader::of(&daemon, "", Some("abc-5")).await;
    assert_eq!(reader.next().await, ("reset".to_owned(), json!({})));
    let nonsense = daemon.http.get(daemon.url("/events")).header("Last-Event-ID", "nonsense");
    let nonsense = read(nonsense.send().await.unwrap()).await;
    nonsense.assert_problem(400, "invalid_request").assert_field("Last-Event-ID");
    daemon.get("/events?vm=a/b").await.assert_problem(400, "invalid_request").assert_field("vm");
}

#[tokio::test]
async fn the_number_of_readers_is_limited_and_a_leaving_one_frees_its_place() {
    let daemon = TestDaemon::start().await;
    let mut readers = Vec::new();
    for _ in 0..64 {
        readers.push(Reader::of(&daemon, "", None).await);
    }
    let refused = daemon.get("/events").await;
    refused.assert_problem(503, "overloaded");
    assert!(refused.headers.contains_key("retry-after"));
    drop(readers);
    let room = async {
        while daemon.http.get(daemon.url("/events")).send().await.unwrap().status() != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, room).await.unwrap();
}

#[tokio::test]
async fn a_reader_does_not_delay_the_end_of_the_daemon() {
    let mut daemon = TestDaemon::with(|config| config.shutdown_grace = DEADLINE * 10).await;
    let mut reader = Reader::of(&daemon, "", None).await;
    daemon.ask_to_stop();
    timeout(DEADLINE, daemon.stopped()).await.unwrap();
    while reader.response.chunk().await.unwrap().is_some() {}
}
