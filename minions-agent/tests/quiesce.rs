//! Quiesce and thaw, as far as they need no guest: hooks, lease, refusals. Freezes are tested in VMs only, because a freeze
//! affects the whole machine.
#![allow(clippy::unwrap_used, reason = "in a test, a panic with its location is the report")]

mod support;

use minions_proto::message::{
    Call, EntropyBytes, Exec, ExecList, HealthCheck, Quiesce, Quiesced, ReadNetwork, ReportStatus,
    RestoreRequest, RestoreState, Thaw, Thawed, encode_request,
};
use minions_proto::{AgentError, ErrorCode};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{RunningAgent, agent_command, answer, listen_value, until};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

const ALLOW: &str = "health,status,exec,quiesce";

/// Lease whose end a test waits for, in milliseconds. All files of the host are synced within it, on a disk that may be busy.
const SHORT_LEASE_MS: u64 = 5_000;

/// Agent with hooks, which append their names to a file.
struct HookedAgent {
    agent: RunningAgent,
    hooks: TempDir,
}

fn command(listen: &str, hooks: &Path) -> Command {
    let mut command = agent_command(listen);
    command.args(["--allow", ALLOW, "--hook-dir", hooks.to_str().unwrap()]);
    command
}

impl HookedAgent {
    async fn start() -> Self {
        Self::start_with(tempfile::tempdir().unwrap()).await
    }

    async fn start_with(hooks: TempDir) -> Self {
        let agent = RunningAgent::with(|listen| command(listen, hooks.path())).await;
        Self { agent, hooks }
    }

    fn command(&self, listen: &str) -> Command {
        command(listen, self.hooks.path())
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
    assert!(!thawed.already);
    assert_eq!(repeated, Thawed { already: true, ..thawed });
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
    guest.quiesce(SHORT_LEASE_MS).await.unwrap();
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

/// Script that waits for the file `go` of the hooks, or for the end of the test.
fn until_go(guest: &HookedAgent) -> String {
    let hooks = guest.hooks.path().display();
    format!("while test -d {hooks} && ! test -e {hooks}/go; do sleep 0.05; done")
}

/// Script that notes a process that still runs.
fn alive(guest: &HookedAgent, pid: &Path) -> String {
    let (pid, runs) = (pid.display(), guest.runs());
    format!("grep -q 'State:.[RSD]' /proc/$(cat {pid})/status && echo alive >> {}", runs.display())
}

fn go(guest: &HookedAgent) {
    fs::write(guest.hooks.path().join("go"), "").unwrap();
}

#[tokio::test]
async fn a_thaw_after_the_end_of_the_lease_is_no_success_although_the_thaw_hooks_still_run() {
    let guest = HookedAgent::start().await;
    guest.hook("thaw.d/10-slow", &until_go(&guest));
    let quiesced = guest.quiesce(SHORT_LEASE_MS).await.unwrap();
    until("the thaw hook runs", async || guest.ran().starts_with("thaw").then_some(())).await;
    for id in [Some(quiesced.id), None] {
        let late = guest.agent.call(&Thaw { id }).await.unwrap_err();
        assert_eq!(late.code, Some(ErrorCode::NotQuiesced));
        assert!(late.message.contains("ended with its lease"), "{late}");
    }
    // The hook had not ended.
    let again = guest.quiesce(1000).await.unwrap_err();
    assert_eq!(again.code, Some(ErrorCode::Quiesced), "{again}");
    go(&guest);
}

#[tokio::test]
async fn a_thaw_while_the_hooks_of_an_earlier_thaw_run_gets_its_reply_marked_as_a_repetition() {
    let guest = HookedAgent::start().await;
    guest.hook("thaw.d/10-slow", &until_go(&guest));
    let id = Some(guest.quiesce(600_000).await.unwrap().id);
    let thaw = Thaw { id };
    let (first, second) = tokio::join!(guest.agent.call(&thaw), async {
        until("the thaw hook runs", async || guest.ran().starts_with("thaw").then_some(())).await;
        let mut connection = guest.agent.connect().await;
        let (reply, ()) = tokio::join!(answer(&mut connection, &thaw), async { go(&guest) });
        reply
    });
    let first = first.unwrap();
    assert!(!first.already);
    assert_eq!(second.unwrap(), Thawed { already: true, ..first });
}

/// Returns a request for the next generation, without restore steps.
async fn restore(guest: &HookedAgent) -> RestoreRequest {
    let agent = guest.agent.call(&HealthCheck {}).await.unwrap().agent.unwrap();
    RestoreRequest {
        parent: agent.instance_id,
        instance_id: "next".into(),
        entropy: EntropyBytes::try_from(vec![7; 32]).unwrap(),
        time_unix_ms: 0,
        steps: Vec::new(),
        required: Vec::new(),
        hostname: None,
        network: None,
        hook_timeout_ms: None,
    }
}

async fn restored(guest: &HookedAgent, request: &RestoreRequest) {
    until("the restore has ended", async || {
        let outcome = guest.agent.call(request).await.unwrap();
        (outcome.state == RestoreState::Done).then_some(())
    })
    .await;
}

#[tokio::test]
async fn hooks_that_run_when_the_guest_is_restored_run_to_their_ends() {
    let guest = HookedAgent::start().await;
    guest.hook(
        "thaw.d/10-slow",
        &format!("{}; echo end >> {}", until_go(&guest), guest.runs().display()),
    );
    guest.hook("thaw.d/20-b", "");
    guest.quiesce(600_000).await.unwrap();
    let thaw = Thaw::default();
    let (thawed, ()) = tokio::join!(guest.agent.call(&thaw), async {
        until("the thaw hook runs", async || guest.ran().starts_with("thaw").then_some(())).await;
        let request = restore(&guest).await;
        let begun = guest.agent.call(&request).await.unwrap();
        assert_eq!(begun.state, RestoreState::Running, "the steps wait for the thaw");
        go(&guest);
        restored(&guest, &request).await;
    });
    let hooks = thawed.unwrap().hooks;
    assert!(hooks.len() == 2 && hooks.iter().all(|hook| hook.ok), "{hooks:?}");
    assert_eq!(guest.ran(), "thaw thaw.d/10-slow\nend\nthaw thaw.d/20-b\n");
    assert_eq!(guest.agent.call(&ExecList {}).await.unwrap().execs, []);
}

#[tokio::test]
async fn a_restore_during_the_freeze_hooks_thaws_the_guest() {
    let guest = HookedAgent::start().await;
    guest.hook("freeze.d/10-hangs", "sleep 1000");
    guest.hook("thaw.d/10-a", "");
    let (quiesced, ()) = tokio::join!(guest.quiesce(600_000), async {
        until("the hook runs", async || guest.ran().starts_with("freeze").then_some(())).await;
        restored(&guest, &restore(&guest).await).await;
    });
    let error = quiesced.unwrap_err();
    assert!(error.message.contains("a thaw was requested"), "{error}");
    assert_eq!(guest.ran(), "freeze freeze.d/10-hangs\nthaw thaw.d/10-a\n");
    assert_eq!(guest.agent.call(&ExecList {}).await.unwrap().execs, []);
}

#[tokio::test]
async fn thaw_hooks_run_after_the_end_of_a_freeze_hook_that_ignores_its_termination() {
    let guest = HookedAgent::start().await;
    let pid = guest.hooks.path().join("pid");
    guest.hook(
        "freeze.d/10-hangs",
        &format!("trap '' TERM; echo $$ > {}; sleep 100", pid.display()),
    );
    let alive = alive(&guest, &pid);
    guest.hook("thaw.d/10-a", &alive);
    let (quiesced, thawed) = tokio::join!(guest.quiesce(600_000), async {
        until("the hook runs", async || fs::read(&pid).ok().filter(|pid| !pid.is_empty())).await;
        guest.agent.call(&Thaw::default()).await
    });
    assert_eq!(quiesced.unwrap_err().step.as_deref(), Some("hooks"));
    thawed.unwrap();
    assert_eq!(guest.ran(), "freeze freeze.d/10-hangs\nthaw thaw.d/10-a\n");
}

#[tokio::test]
async fn the_next_agent_ends_a_hook_of_a_killed_one_and_is_not_quiesced_before_the_old_quiesce_is_undone()
 {
    let guest = HookedAgent::start().await;
    let pid = guest.hooks.path().join("pid");
    guest.hook("freeze.d/10-hangs", &format!("echo $$ > {}; exec sleep 100", pid.display()));
    let alive = alive(&guest, &pid);
    guest.hook("thaw.d/10-a", &format!("{alive}\n{}", until_go(&guest)));
    let mut stream = guest.agent.stream().await;
    stream.write_all(&encode_request(&Quiesce::default()).unwrap()).await.unwrap();
    until("the hook runs", async || fs::read(&pid).ok().filter(|pid| !pid.is_empty())).await;
    fs::write(guest.hooks.path().join("freeze.d/10-hangs"), "#!/bin/sh\n").unwrap();
    // On the same socket, because that is how agents know the programs of earlier ones.
    let (listen, mut guest) = (listen_value(&guest.agent.socket()), guest);
    let next = guest.command(&listen);
    guest.agent.restart(next).await;
    let refused = guest.quiesce(600_000).await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::Quiesced), "{refused}");
    assert!(refused.message.contains("begins or ends at the moment"), "{refused}");
    assert_eq!(guest.code_of(&Thaw::default()).await, Some(ErrorCode::NotQuiesced));
    guest.agent.call(&true_program()).await.unwrap();
    go(&guest);
    until("the guest can be quiesced", async || guest.quiesce(600_000).await.ok()).await;
    assert_eq!(guest.ran(), "freeze freeze.d/10-hangs\nthaw thaw.d/10-a\n");
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
        let guest = RunningAgent::with(|listen| command(listen, hooks.path())).await;
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
