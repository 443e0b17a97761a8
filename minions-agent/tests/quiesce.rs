//! Quiesce and thaw, as far as they need no guest: hooks, lease, refusals. Freezes are tested in VMs only, because a freeze
//! affects the whole machine.
#![allow(clippy::unwrap_used, reason = "in a test, a panic with its location is the report")]

mod support;

use minions_proto::message::{
    Call, Exec, HealthCheck, Quiesce, Quiesced, ReadNetwork, ReportStatus, Thaw, encode_request,
};
use minions_proto::{AgentError, ErrorCode};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::{RunningAgent, agent_command, until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const ALLOW: &str = "health,status,exec,quiesce";

/// Agent with hooks, which append their names to a file.
struct HookedAgent {
    agent: RunningAgent,
    hooks: TempDir,
}

impl HookedAgent {
    async fn start() -> Self {
        let hooks = tempfile::tempdir().unwrap();
        let flags = ["--allow", ALLOW, "--hook-dir", hooks.path().to_str().unwrap()];
        let agent = RunningAgent::with_flags(&flags).await;
        Self { agent, hooks }
    }

    /// Adds a hook that notes its run and then runs `script`.
    fn hook(&self, path: &str, script: &str) {
        let file = self.hooks.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let note = format!("echo $MINIONS_EVENT {path} >> {}", self.runs().display());
        fs::write(&file, format!("#!/bin/sh\n{note}\n{script}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn runs(&self) -> std::path::PathBuf {
        self.hooks.path().join("runs.txt")
    }

    fn ran(&self) -> String {
        fs::read_to_string(self.runs()).unwrap_or_default()
    }

    async fn quiesce(&self, ttl_ms: u64) -> Result<Quiesced, AgentError> {
        self.agent.call(&Quiesce { ttl_ms: Some(ttl_ms), ..Quiesce::default() }).await
    }

    async fn remaining_ms(&self) -> Option<u64> {
        self.agent.call(&HealthCheck {}).await.unwrap().quiesced.map(|lease| lease.lease_ms)
    }

    async fn code_of<C: Call>(&self, call: &C) -> Option<ErrorCode> {
        self.agent.call(call).await.err().and_then(|error| error.code)
    }
}

fn true_program() -> Exec {
    Exec { command: "true".into(), args: Vec::new(), timeout_ms: None }
}

#[tokio::test]
async fn until_the_thaw_only_health_status_and_thaw_are_answered() {
    let guest = HookedAgent::start().await;
    guest.hook("freeze.d/20-b", "");
    guest.hook("freeze.d/10-a", "");
    guest.hook("thaw.d/10-a", "");
    guest.hook("thaw.d/20-fails", "echo no room >&2; exit 1");
    guest.hook("thaw.d/30-c", "");
    let quiesced = guest.quiesce(600_000).await.unwrap();
    assert_eq!(guest.ran(), "freeze freeze.d/10-a\nfreeze freeze.d/20-b\n");
    assert_eq!(quiesced.hooks.len(), 2);
    assert!(quiesced.hooks.iter().all(|hook| hook.ok), "{quiesced:?}");
    assert!(quiesced.frozen.is_empty() && quiesced.not_frozen.is_empty());
    assert!((500_000..=600_000).contains(&quiesced.lease_ms), "{}", quiesced.lease_ms);
    let remaining = guest.remaining_ms().await.unwrap();
    assert!((500_000..=600_000).contains(&remaining), "{remaining}");
    guest.agent.call(&ReportStatus {}).await.unwrap();

    assert_eq!(guest.code_of(&true_program()).await, Some(ErrorCode::Quiesced));
    assert_eq!(guest.code_of(&ReadNetwork {}).await, Some(ErrorCode::Quiesced));
    let again = guest.quiesce(1000).await.unwrap_err();
    assert_eq!(again.code, Some(ErrorCode::Quiesced));
    assert!(again.message.starts_with("the guest is already quiesced"), "{again}");
    let other = Thaw { id: Some("another".into()) };
    assert_eq!(guest.code_of(&other).await, Some(ErrorCode::NotQuiesced));

    let thawed = guest.agent.call(&Thaw { id: Some(quiesced.id.clone()) }).await.unwrap();
    assert_eq!(thawed.id, quiesced.id);
    let ends: Vec<_> = thawed.hooks.iter().map(|hook| (hook.ok, hook.detail.as_str())).collect();
    let failed = (false, "exited with status 1: no room");
    assert_eq!(ends, [(true, "exited with status 0"), failed, (true, "exited with status 0")]);
    assert_eq!(guest.remaining_ms().await, None);
    guest.agent.call(&true_program()).await.unwrap();
    let repeated = guest.agent.call(&Thaw { id: Some(quiesced.id.clone()) }).await.unwrap();
    assert_eq!(repeated, thawed);
    let late = guest.agent.call(&Thaw::default()).await.unwrap_err();
    assert_eq!(late.code, Some(ErrorCode::NotQuiesced));
    assert!(late.message.contains("was thawed on request"), "{late}");
    // The next quiesce is independent of this one.
    let next = guest.quiesce(600_000).await.unwrap();
    assert_ne!(next.id, quiesced.id);
}

#[tokio::test]
async fn the_end_of_the_lease_thaws_and_runs_the_thaw_hooks() {
    let guest = HookedAgent::start().await;
    guest.hook("thaw.d/10-a", "");
    guest.quiesce(1000).await.unwrap();
    until("the lease has ended", async || guest.remaining_ms().await.is_none().then_some(())).await;
    until("the thaw hook has run", async || (guest.ran() == "thaw thaw.d/10-a\n").then_some(()))
        .await;
    until("the quiesce has ended", async || {
        let late = guest.agent.call(&Thaw::default()).await.err()?;
        late.message.contains("ended with its lease").then_some(())
    })
    .await;
    guest.agent.call(&true_program()).await.unwrap();
}

#[tokio::test]
async fn a_failed_freeze_hook_is_named_and_the_thaw_hooks_run() {
    let guest = HookedAgent::start().await;
    guest.hook("freeze.d/10-fails", "echo the database is busy >&2; exit 7");
    guest.hook("freeze.d/20-never", "");
    guest.hook("thaw.d/10-a", "");
    let error = guest.quiesce(600_000).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::QuiesceFailed));
    assert_eq!(error.step.as_deref(), Some("hooks"));
    let path = guest.hooks.path().join("freeze.d/10-fails");
    let expected = format!("{} exited with status 7: the database is busy", path.display());
    assert!(error.message.contains(&expected), "{error}");
    assert_eq!(guest.ran(), "freeze freeze.d/10-fails\nthaw thaw.d/10-a\n");
    assert_eq!(guest.remaining_ms().await, None);
    guest.agent.call(&true_program()).await.unwrap();
}

#[tokio::test]
async fn a_requester_that_leaves_during_the_hooks_leaves_no_quiesced_guest() {
    let guest = HookedAgent::start().await;
    guest.hook("freeze.d/10-hangs", "sleep 1000");
    guest.hook("thaw.d/10-a", "");
    let mut stream = guest.agent.stream().await;
    stream.write_all(&encode_request(&Quiesce::default()).unwrap()).await.unwrap();
    until("the hook runs", async || guest.ran().starts_with("freeze").then_some(())).await;
    // Other requests are answered while the hooks run.
    guest.agent.call(&true_program()).await.unwrap();
    let again = guest.quiesce(1000).await.unwrap_err();
    assert_eq!(again.code, Some(ErrorCode::Quiesced));
    drop(stream);
    until("the thaw hook has run", async || guest.ran().ends_with("thaw.d/10-a\n").then_some(()))
        .await;
    assert_eq!(guest.remaining_ms().await, None);
}

#[tokio::test]
async fn a_thaw_during_the_hooks_cancels_the_quiesce() {
    let guest = HookedAgent::start().await;
    guest.hook("freeze.d/10-hangs", "sleep 1000");
    let (quiesced, thawed) = tokio::join!(guest.quiesce(600_000), async {
        until("the hook runs", async || guest.ran().starts_with("freeze").then_some(())).await;
        guest.agent.call(&Thaw::default()).await
    });
    let error = quiesced.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::QuiesceFailed));
    assert!(error.message.contains("a thaw was requested"), "{error}");
    assert_eq!(thawed.unwrap().quiesced_ms, 0);
}

#[tokio::test]
async fn the_agent_after_a_killed_one_runs_the_thaw_hooks_once() {
    let guest = HookedAgent::start().await;
    guest.hook("thaw.d/10-a", "");
    guest.quiesce(600_000).await.unwrap();
    let HookedAgent { agent, hooks } = guest;
    drop(agent);
    let directory = hooks.path().to_str().unwrap();
    for _ in 0..2 {
        let agent = RunningAgent::with(|listen| {
            let mut command = agent_command(listen);
            command.args(["--allow", ALLOW, "--hook-dir", directory]);
            command
        });
        let guest = agent.await;
        let ran = hooks.path().join("runs.txt");
        until("the thaw hook has run", async || {
            let ran = fs::read_to_string(&ran).unwrap_or_default();
            (ran == "thaw thaw.d/10-a\n").then_some(())
        })
        .await;
        until("its run is recorded", async || {
            let left = fs::read_dir("/run/minions-agent").unwrap();
            let suffix = directory.replace('/', "-");
            let mut left = left.flatten().map(|entry| entry.file_name().into_string().unwrap());
            (!left.any(|name| name.ends_with(&suffix))).then_some(())
        })
        .await;
        assert_eq!(guest.call(&HealthCheck {}).await.unwrap().quiesced, None);
    }
}

#[tokio::test]
async fn wrong_values_are_refused_by_their_names() {
    let guest = HookedAgent::start().await;
    let refused = async |call: Quiesce| guest.agent.call(&call).await.unwrap_err();
    let year = refused(Quiesce { ttl_ms: Some(31_536_000_000), ..Quiesce::default() }).await;
    assert_eq!(
        (year.code, year.field.as_deref()),
        (Some(ErrorCode::InvalidArgument), Some("ttl_ms"))
    );
    // The machine of a test must not be frozen.
    let freeze = refused(Quiesce { freeze_fs: true, ..Quiesce::default() }).await;
    assert_eq!(
        (freeze.code, freeze.field.as_deref()),
        (Some(ErrorCode::InvalidArgument), Some("freeze_fs"))
    );
    let thaw = guest.agent.call(&Thaw::default()).await.unwrap_err();
    assert_eq!(
        (thaw.code, thaw.message.as_str()),
        (Some(ErrorCode::NotQuiesced), "the guest is not quiesced")
    );
    assert_eq!(guest.remaining_ms().await, None);
}
