//! Callers: each sends requests and checks the answers.

use crate::judge::{HttpAnswer, told_by_problem};
use crate::member::{CallStart, VmModel};
use crate::orders::{ExecutionClaim, Requests};
use crate::state::SoakState;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testkit::fake_vmm::Dialect;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Timeout of a call to a healthy VM, in milliseconds; long enough for a very busy machine.
const PATIENCE_MS: u64 = 20_000;

/// Timeout of a call to a VM that may be faulty, in milliseconds.
const LITTLE_PATIENCE_MS: u64 = 500;

/// Maximum duration of a call that its caller abandons, in microseconds.
const STAYS_US: u64 = 5_000;

/// Sends calls one after the other until `stop` is cancelled.
pub(super) async fn run(world: Arc<SoakState>, mut rng: StdRng, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let vm = &world.members[rng.random_range(0..world.members.len())];
        world.calls.fetch_add(1, Ordering::Relaxed);
        match rng.random_range(0..100) {
            0..40 => world.vitals("health", vm).await,
            40..50 => world.vitals("status", vm).await,
            50..72 => world.exec(vm).await,
            72..82 => world.exec_as_lines(vm).await,
            82..88 => {
                let stays = Duration::from_micros(rng.random_range(0..STAYS_US));
                world.exec_and_leave(vm, stays).await;
            }
            88..92 => world.exec_twice(vm).await,
            92..99 => world.look(vm).await,
            _ => world.list().await,
        }
    }
}

impl SoakState {
    async fn vitals(&self, what: &str, vm: &VmModel) {
        let before = vm.before();
        let path = format!("/vms/{}/{what}?timeout_ms={}", vm.name, patience(&before));
        if let Some(answer) = self.get(&path).await {
            self.judge_vitals(what, vm, &before, &answer);
        }
    }

    async fn exec(&self, vm: &VmModel) {
        let (before, order) = (vm.before(), self.orders.open(&vm.name));
        let told = match self.post(vm, &before, &body(order, None)).await {
            Some(answer) => self.told("exec", vm, &before, order, &answer),
            None => ExecutionClaim::Perhaps,
        };
        self.orders.told(order, told, Requests::One, &self.journal);
    }

    /// Sends two calls with the same id: the program must run only once.
    async fn exec_twice(&self, vm: &VmModel) {
        if vm.dialect == Dialect::Base {
            return self.exec(vm).await;
        }
        let (before, order) = (vm.before(), self.orders.open(&vm.name));
        let body = body(order, Some(format!("twin-{order}")));
        let answers = tokio::join!(self.post(vm, &before, &body), self.post(vm, &before, &body));
        let told = [answers.0, answers.1].map(|answer| match answer {
            Some(answer) => self.told("twin", vm, &before, order, &answer),
            None => ExecutionClaim::Perhaps,
        });
        self.orders.told(order, told[0].either(told[1]), Requests::Two, &self.journal);
    }

    async fn exec_and_leave(&self, vm: &VmModel, stays: Duration) {
        let (before, order) = (vm.before(), self.orders.open(&vm.name));
        let told = match timeout(stays, self.post(vm, &before, &body(order, None))).await {
            Ok(Some(answer)) => self.told("brief", vm, &before, order, &answer),
            Ok(None) => ExecutionClaim::Perhaps,
            Err(_) => {
                self.journal.answer("brief left");
                ExecutionClaim::Perhaps
            }
        };
        self.orders.told(order, told, Requests::One, &self.journal);
    }

    async fn exec_as_lines(&self, vm: &VmModel) {
        let (before, order) = (vm.before(), self.orders.open(&vm.name));
        let request = self.request(vm, &before, &body(order, None));
        let told = match text(request.header("accept", "application/x-ndjson")).await {
            Ok((200, text)) => self.told_by_lines(vm, &before, order, &text),
            Ok((status, text)) => {
                let json = serde_json::from_str(&text).unwrap_or(Value::Null);
                self.told("lines", vm, &before, order, &HttpAnswer { status, json })
            }
            Err(error) => self.broken(&error),
        };
        self.orders.told(order, told, Requests::One, &self.journal);
    }

    fn told_by_lines(
        &self,
        vm: &VmModel,
        before: &CallStart,
        order: u64,
        text: &str,
    ) -> ExecutionClaim {
        let mut output = String::new();
        let mut end = Value::Null;
        for line in text.lines() {
            let event: Value = serde_json::from_str(line).unwrap_or(Value::Null);
            match event["type"].as_str() {
                Some("stdout") => output.push_str(event["data"].as_str().unwrap_or("\u{fffd}")),
                Some("started" | "heartbeat") => {}
                Some("exit" | "error") if end.is_null() => end = event,
                _ => {
                    self.journal.violation(format!("{}: unexpected line {line:?}", vm.name));
                }
            }
        }
        match end["type"].as_str() {
            Some("exit") => {
                self.journal.answer("lines 200");
                self.judge_output(vm, before, order, &output);
                ExecutionClaim::Ran
            }
            Some(_) => {
                let answer = HttpAnswer { status: 0, json: end["problem"].clone() };
                let status = answer.json["status"].as_u64().and_then(|s| u16::try_from(s).ok());
                let answer = HttpAnswer { status: status.unwrap_or(0), ..answer };
                self.is_ok("lines", vm, before, &answer);
                told_by_problem(&answer.json)
            }
            None => {
                self.journal.violation(format!("{}: a stream without an end: {text:?}", vm.name));
                ExecutionClaim::Perhaps
            }
        }
    }

    /// Reads the daemon's own data about a VM, which no VM can delay.
    async fn look(&self, vm: &VmModel) {
        let before = vm.before();
        let Some(answer) = self.get(&format!("/vms/{}", vm.name)).await else { return };
        if self.is_ok("look", vm, &before, &answer) && answer.json["name"] != vm.name.as_str() {
            self.wrong("look", vm, "is another VM's", &answer);
        }
    }

    async fn list(&self) {
        let Some(answer) = self.get("/vms").await else { return };
        let len = answer.json["vms"].as_array().map_or(0, Vec::len);
        if answer.status != 200 || len > self.members.len() {
            self.journal.violation(format!("GET /vms: {} with {len} VMs", answer.status));
        }
        self.journal.answer("list 200");
    }

    pub(super) async fn get(&self, path: &str) -> Option<HttpAnswer> {
        self.read(self.http.get(Self::url(path))).await
    }

    fn request(&self, vm: &VmModel, before: &CallStart, body: &Value) -> reqwest::RequestBuilder {
        let path = format!("/vms/{}/exec?timeout_ms={}", vm.name, patience(before));
        self.http.post(Self::url(&path)).json(body)
    }

    async fn post(&self, vm: &VmModel, before: &CallStart, body: &Value) -> Option<HttpAnswer> {
        self.read(self.request(vm, before, body)).await
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Option<HttpAnswer> {
        match text(request).await {
            Ok((status, text)) => {
                let json = serde_json::from_str(&text).unwrap_or(Value::Null);
                Some(HttpAnswer { status, json })
            }
            Err(error) => {
                self.broken(&error);
                None
            }
        }
    }

    /// Records a violation: the daemon must give an HTTP answer, whatever the guests do.
    fn broken(&self, error: &reqwest::Error) -> ExecutionClaim {
        self.journal.violation(format!("no answer: {error:?}"));
        ExecutionClaim::Perhaps
    }
}

fn patience(before: &CallStart) -> u64 {
    if before.calm { PATIENCE_MS } else { LITTLE_PATIENCE_MS }
}

fn body(order: u64, id: Option<String>) -> Value {
    let mut body = json!({ "command": "soak", "args": [order.to_string()] });
    if let Some(id) = id {
        body["id"] = id.into();
    }
    body
}

async fn text(request: reqwest::RequestBuilder) -> Result<(u16, String), reqwest::Error> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok((status, response.text().await?))
}
