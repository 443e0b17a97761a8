//! Shared parts of the fault matrix: a daemon with guests that record their programs, and events.

use serde_json::{Value, json};
use std::sync::Arc;
use testkit::daemon::{DEADLINE, Reply, TestDaemon, read};
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, Ledger, Manner};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async as until;
use tokio::time::timeout;

/// Daemon with one VM, `web-1`, that is ready.
pub(crate) struct World {
    pub(crate) daemon: TestDaemon,
    pub(crate) vm: FakeVmm,
    pub(crate) guest: Guest,
    pub(crate) ledger: Arc<Ledger>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::speaking(Dialect::Objects).await
    }

    pub(crate) async fn speaking(dialect: Dialect) -> Self {
        let daemon = TestDaemon::start().await;
        let ledger = Arc::new(Ledger::default());
        let guest = Guest::new("web-1", dialect, 1, Arc::clone(&ledger));
        let behaviour = Behaviour::Guest(guest.clone());
        let vm = FakeVmm::start(daemon.sockets(), "web-1", behaviour).unwrap();
        daemon.until_state("web-1", "ready").await;
        Self { daemon, vm, guest, ledger }
    }

    /// Starts another VM, which stays healthy.
    pub(crate) async fn bystander(&self) -> FakeVmm {
        let guest = Guest::new("other", Dialect::Objects, 1, Arc::default());
        let vm = FakeVmm::start(self.daemon.sockets(), "other", Behaviour::Guest(guest)).unwrap();
        self.daemon.until_state("other", "ready").await;
        vm
    }

    /// Runs the program of the order with this number.
    pub(crate) async fn order(&self, order: u64, patience_ms: u64) -> Reply {
        self.ledger.open(order, "web-1");
        let body = json!({ "command": "soak", "args": [order.to_string()] });
        self.daemon.post(&format!("/vms/web-1/exec?timeout_ms={patience_ms}"), body).await
    }

    /// Waits until the program runs.
    pub(crate) async fn running(&self, order: u64) {
        until("the program runs", async || self.ran(order) == 1).await;
    }

    pub(crate) fn ran(&self, order: u64) -> u32 {
        self.ledger.runs(order).map_or(0, |runs| runs.there + runs.elsewhere)
    }

    /// Runs a program, does `then` while it runs, and returns the reply of the call.
    pub(crate) async fn in_mid_exec(&self, patience_ms: u64, then: impl AsyncFnOnce()) -> Reply {
        self.guest.behave(Manner::Hangs);
        let call = self.order(1, patience_ms);
        let happening = async {
            self.running(1).await;
            then().await;
        };
        tokio::join!(call, happening).0
    }
}

/// Reader of `GET /events`.
pub(crate) struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    pub(crate) async fn of(daemon: &TestDaemon) -> Self {
        let mut response = daemon.http.get(daemon.url("/events")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        // From now on the reader receives all events.
        let greeting = response.chunk().await.unwrap().unwrap();
        Self { response, text: String::from_utf8(greeting.to_vec()).unwrap() }
    }

    /// Returns the kinds of all events so far, in their order.
    pub(crate) fn kinds(&self) -> Vec<&str> {
        self.text.lines().filter_map(|line| line.strip_prefix("event: ")).collect()
    }

    /// Waits until `count` events of this kind have arrived, and returns all kinds.
    pub(crate) async fn first_kinds(&mut self, kind: &str, count: usize) -> Vec<&str> {
        while self.kinds().iter().filter(|known| **known == kind).count() < count {
            self.more(kind).await;
        }
        self.kinds()
    }

    /// Returns the data of the first event of this kind.
    pub(crate) fn first(&self, kind: &str) -> Value {
        let event = format!("event: {kind}\n");
        let mut messages = self.text.split("\n\n");
        let message = messages.find(|message| message.contains(&event)).expect(kind);
        let data = message.lines().find_map(|line| line.strip_prefix("data: ")).expect(kind);
        serde_json::from_str(data).unwrap()
    }

    /// Waits for an event of this kind.
    pub(crate) async fn until(&mut self, kind: &str) {
        while !self.text.contains(&format!("event: {kind}\n")) {
            self.more(kind).await;
        }
    }

    async fn more(&mut self, wanted: &str) {
        let chunk = timeout(DEADLINE, self.response.chunk()).await.expect(wanted).unwrap();
        self.text += std::str::from_utf8(&chunk.expect("the event stream continues")).unwrap();
    }
}

/// Starts a VM with a guest of this daemon.
pub(crate) fn guest(daemon: &Minionsd, name: &str) -> FakeVmm {
    let guest = Guest::new(name, Dialect::Objects, 1, Arc::default());
    FakeVmm::start(daemon.vms(), name, Behaviour::Guest(guest)).unwrap()
}

/// Runs a program in the VM `web-1` of this daemon.
pub(crate) fn exec(
    daemon: &Minionsd,
    body: Value,
) -> impl Future<Output = Result<Reply, reqwest::Error>> + use<> {
    let request = daemon.http().post("http://minionsd/vms/web-1/exec").json(&body);
    async move { Ok(read(request.send().await?).await) }
}
