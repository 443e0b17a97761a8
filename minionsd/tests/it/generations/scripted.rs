//! Guest whose memory can be copied and put back, which the memory of a process cannot.

use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use testkit::wire::framed;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Memory of a guest's agent.
#[derive(Debug, Clone, Default)]
pub(super) struct AgentMemory {
    pub(super) instance: String,
    pub(super) parent: Option<String>,
    pub(super) generation: u64,
    pub(super) probes: u64,
    pub(super) tokens: Vec<String>,
    pub(super) restore: Option<&'static str>,
    /// Requests of the type `restore`.
    pub(super) restores: Vec<Value>,
    /// Step that fails, and whether it is required.
    pub(super) failing: Option<&'static str>,
    /// Number of replies to `restore` that say that the steps run.
    pub(super) slow: u32,
    /// Health checks without a token.
    pub(super) plain: u64,
    /// Time of the guest's clock, which then can be set.
    pub(super) time_unix_ms: Option<u64>,
    /// Number of requests to set the clock.
    pub(super) clocks_set: u64,
}

/// Guest that several VMMs can run, one after the other.
#[derive(Debug, Clone)]
pub(super) struct ScriptedGuest(Arc<Mutex<AgentMemory>>);

impl ScriptedGuest {
    pub(super) fn booted(instance: &str) -> Self {
        Self::from_snapshot(AgentMemory { instance: instance.into(), ..AgentMemory::default() })
    }

    pub(super) fn from_snapshot(memory: AgentMemory) -> Self {
        Self(Arc::new(Mutex::new(memory)))
    }

    pub(super) fn memory(&self) -> MutexGuard<'_, AgentMemory> {
        self.0.lock().unwrap()
    }

    pub(super) fn snapshot(&self) -> AgentMemory {
        self.memory().clone()
    }

    /// Puts a snapshot back while the VMM goes on.
    pub(super) fn rewind(&self, memory: AgentMemory) {
        *self.memory() = memory;
    }

    /// Starts a VMM that runs the guest.
    pub(super) fn start(&self, dir: &Path, name: &str) -> ScriptedVmm {
        let [path, new] = ["vsock", "new"].map(|end| dir.join(format!("{name}.{end}")));
        // Replaces the file that a killed VMM has left, in one step.
        let listener = UnixListener::bind(&new).unwrap();
        std::fs::rename(new, path).unwrap();
        let guest = self.clone();
        ScriptedVmm(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(guest.clone().serve(stream));
            }
        }))
    }

    async fn serve(self, mut stream: UnixStream) -> std::io::Result<()> {
        let mut line = [0; 32];
        let _ = stream.read(&mut line).await?;
        stream.write_all(b"OK 1\n").await?;
        loop {
            let len = stream.read_u32().await?;
            let mut payload = vec![0; usize::try_from(len).unwrap()];
            stream.read_exact(&mut payload).await?;
            let request: Value = serde_json::from_slice(&payload).unwrap();
            let answer = framed(self.memory().answer(&request));
            stream.write_all(&answer).await?;
        }
    }
}

/// VMM; killed when dropped, and its socket file remains.
#[derive(Debug)]
pub(super) struct ScriptedVmm(JoinHandle<()>);

impl Drop for ScriptedVmm {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl AgentMemory {
    fn answer(&mut self, request: &Value) -> Value {
        match (request["type"].as_str(), request["vmm_token"].as_str()) {
            (Some("health_check"), Some(token)) => {
                self.probes += 1;
                if !self.tokens.iter().any(|known| known == token) {
                    if !self.tokens.is_empty() {
                        self.restore = Some("required");
                    }
                    self.tokens.push(token.to_owned());
                }
                self.health()
            }
            (Some("health_check"), None) => {
                self.plain += 1;
                self.health()
            }
            (Some("restore"), _) => self.restore(request),
            (Some("set_clock"), _) => {
                self.clocks_set += 1;
                json!({ "status": "ok", "step_ms": 1 })
            }
            _ => json!({ "status": "error", "message": "unsupported", "code": "unsupported" }),
        }
    }

    fn health(&self) -> Value {
        let features: &[&str] = match self.time_unix_ms {
            Some(_) => &["generations", "clock"],
            None => &["generations"],
        };
        json!({
            "status": "ok", "uptime_secs": 7, "hostname": "h", "time_unix_ms": self.time_unix_ms,
            "agent": {
                "name": "a", "version": "1", "protocol": 2, "features": features,
                "boot_id": "b", "instance_id": self.instance, "generation": self.generation,
                "parent_instance_id": self.parent, "probe_count": self.probes,
                "restore": self.restore,
            },
        })
    }

    fn restore(&mut self, request: &Value) -> Value {
        self.restores.push(request.clone());
        let parent = request["parent"].as_str().unwrap().to_owned();
        if parent == self.instance {
            self.instance = request["instance_id"].as_str().unwrap().to_owned();
            self.parent = Some(parent.clone());
            self.generation += 1;
        }
        let is_required = |step: &str| {
            request["required"].as_array().is_some_and(|all| all.contains(&json!(step)))
        };
        let step = |name: &str| {
            let ok = self.failing != Some(name);
            json!({ "step": name, "ok": ok, "detail": if ok { "well" } else { "broken" }, "duration_ms": 1 })
        };
        let names: Vec<_> = request["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap())
            .collect();
        let steps: Vec<_> = names.iter().map(|name| step(name)).collect();
        self.restore = Some(match self.failing {
            _ if self.slow > 0 => "running",
            Some(name) if is_required(name) => "failed",
            _ => "done",
        });
        self.slow = self.slow.saturating_sub(1);
        json!({
            "status": "ok", "state": self.restore, "generation": self.generation,
            "instance_id": self.instance, "parent_instance_id": self.parent, "steps": steps,
        })
    }
}
