//! The agent under a service manager: a passed socket, the watchdog, a default user, inherited state.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{Exec, HealthCheck};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{BINARY, RunningAgent, SOON};

/// Child process, killed and reaped on drop.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a hexadecimal field of /proc/PID/status.
fn field(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

#[tokio::test]
async fn privileges_that_no_allowed_request_needs_are_dropped() {
    // CAP_SYS_TIME is 25.
    for (allow, kept) in [("health,status", 0), ("health,clock", 1 << 25)] {
        let agent = RunningAgent::with_flags(&["--allow", allow]).await;
        agent.call(&HealthCheck {}).await.unwrap();
        let of_it = |name| field(&agent.pid().to_string(), name);
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(of_it(set), kept & field("self", set), "{allow}: {set}");
        }
        assert_eq!((of_it("CapBnd") & !kept, of_it("NoNewPrivs")), (0, 1), "{allow}");
    }
    let agent = RunningAgent::with_flags(&["--allow", "health,exec"]).await;
    let of_it = |name| field(&agent.pid().to_string(), name);
    assert_eq!((of_it("CapEff"), of_it("NoNewPrivs")), (field("self", "CapEff"), 0));
}

/// Starts an agent with `listener` as descriptor 3, as in sd_listen_fds(3).
fn activated(listener: &UnixListener, flags: &str) -> Ended {
    let socket = OwnedFd::from(listener.try_clone().unwrap());
    let script = format!(
        "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" --log-level error {flags}"
    );
    let command =
        Command::new("sh").args(["-c", &script, BINARY]).stdin(Stdio::from(socket)).spawn();
    Ended(command.unwrap())
}

async fn hostname(socket: &Path) -> String {
    let stream = minions_proto::hybrid::dial(socket, 1024, SOON).await.unwrap();
    let mut connection = minions_proto::connection::Connection::new(stream);
    support::answer(&mut connection, &HealthCheck {}).await.unwrap().hostname
}

#[tokio::test]
async fn a_passed_socket_is_served_and_connections_wait_while_no_agent_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let first = activated(&listener, "");
    assert!(!hostname(&path).await.is_empty());
    drop(first);
    // No agent runs, but the connection is not refused: the manager holds the socket.
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { hostname(&path).await }
    });
    let _second = activated(&listener, "--listen activated");
    assert!(!waiting.await.unwrap().is_empty());
    assert!(path.exists(), "the agent removed the service manager's socket file");
}

#[tokio::test]
async fn without_a_passed_socket_the_agent_fails_at_once() {
    for (pid, count) in [("1", "1"), ("$$", "0"), ("$$", "1")] {
        // Descriptor 3 is not a socket, even where the environment says so.
        let script = format!(
            "exec 3</dev/null; LISTEN_PID={pid} LISTEN_FDS={count} exec \"$0\" --listen activated"
        );
        let output = Command::new("sh").args(["-c", &script, BINARY]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("no usable socket from the service manager"), "{said}");
    }
}

#[tokio::test]
async fn the_service_manager_is_told_ready_watchdog_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let receive = || {
        let mut state = [0; 64];
        let len = manager.recv(&mut state).unwrap();
        String::from_utf8(state[..len].to_vec()).unwrap()
    };
    let mut agent = RunningAgent::with(|listen| {
        let mut command = support::agent_command(listen);
        let address = dir.path().join("notify");
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "40000");
        command
    })
    .await;
    assert_eq!(receive(), "READY=1");
    assert_eq!((receive(), receive()), ("WATCHDOG=1".into(), "WATCHDOG=1".into()));
    assert!(support::terminate(&mut agent).await.success());
    while receive() != "STOPPING=1" {}
}

#[tokio::test]
async fn programs_without_a_user_run_as_the_user_of_exec_user() {
    let agent = RunningAgent::with_flags(&["--exec-user", "65534:65533"]).await;
    let id = Exec { command: "id".into(), args: Vec::new(), timeout_ms: None };
    let ran = agent.call(&id).await.unwrap();
    assert!(ran.stdout.contains("uid=65534") && ran.stdout.contains("gid=65533"), "{ran:?}");
    let agent = RunningAgent::with_flags(&["--exec-user", "no-such-user"]).await;
    let refused = agent.call(&id).await.unwrap_err();
    assert_eq!(refused.code, Some(minions_proto::ErrorCode::UserNotFound), "{refused:?}");
}

/// Starts an agent through a program that prepares the inherited state.
async fn behind(words: &[&str]) -> RunningAgent {
    RunningAgent::with(|listen| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args([BINARY, "--log-level", "error", "--listen", listen]);
        command
    })
    .await
}

async fn shell(agent: &RunningAgent, script: &str) -> minions_proto::message::ExecReply {
    let args = ["-c", script].map(str::to_owned).into();
    agent.call(&Exec { command: "sh".into(), args, timeout_ms: None }).await.unwrap()
}

#[tokio::test]
async fn an_agent_whose_parent_ignores_sigchld_gets_exit_codes() {
    let agent = behind(&["env", "--ignore-signal=CHLD"]).await;
    assert_eq!(shell(&agent, "exit 3").await.exit_code, 3);
}

#[tokio::test]
async fn an_agent_that_was_started_with_blocked_signals_receives_them() {
    let mut agent = behind(&["env", "--block-signal"]).await;
    assert!(support::terminate(&mut agent).await.success());
}

#[tokio::test]
async fn programs_inherit_neither_descriptors_nor_umask_of_the_agents_parent() {
    let agent = behind(&["sh", "-c", "umask 077; exec 7</dev/null; exec \"$0\" \"$@\""]).await;
    let seen = shell(&agent, "umask; ls /proc/self/fd | tr '\\n' ' '").await.stdout;
    // The fourth descriptor is the directory that `ls` reads.
    assert_eq!(seen, "0022\n0 1 2 3 ");
}

#[tokio::test]
async fn programs_do_not_inherit_variables_of_the_service_manager() {
    // systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
    const VARIABLES: [&str; 30] = [
        "CACHE_DIRECTORY",
        "CONFIGURATION_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "FDSTORE",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
        "LOGS_DIRECTORY",
        "LOG_NAMESPACE",
        "MAINPID",
        "MANAGERPID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "MONITOR_EXIT_CODE",
        "MONITOR_EXIT_STATUS",
        "MONITOR_INVOCATION_ID",
        "MONITOR_SERVICE_RESULT",
        "MONITOR_UNIT",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "SYSTEMD_EXEC_PID",
        "TRIGGER_PATH",
        "TRIGGER_TIMER_MONOTONIC_USEC",
        "TRIGGER_TIMER_REALTIME_USEC",
        "TRIGGER_UNIT",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    ];
    let agent = RunningAgent::with(|listen| {
        let mut command = support::agent_command(listen);
        command.envs(VARIABLES.map(|name| (name, "x"))).env("KEPT", "x");
        command
    })
    .await;
    let seen = shell(&agent, "env").await.stdout;
    let names: Vec<_> = seen.lines().filter_map(|line| line.strip_suffix("=x")).collect();
    assert_eq!(names, ["KEPT"]);
}

/// Script that prints, of the agent: nice values and scheduling policies of all threads (3: batch), `oom_score_adj`;
/// then the same of a program (0: the default policy).
const STANDING: &str = "read -r pid _ </proc/$PPID/stat
    for thread in /proc/$pid/task/*; do cut -d' ' -f19,41 $thread/stat; done | sort -u | tr '\\n' ' '
    cat /proc/$pid/oom_score_adj; cut -d' ' -f19,41 /proc/self/stat; cat /proc/self/oom_score_adj";

#[tokio::test]
async fn the_agent_gets_a_high_priority_and_its_programs_do_not() {
    // Started by a unit, by a shell, and by an administrator with a low priority.
    for (preparation, score, program) in [
        ("echo -900 >/proc/self/oom_score_adj", 0, "0 0\n0\n"),
        (":", 0, "0 0\n0\n"),
        ("echo 300 >/proc/self/oom_score_adj; renice -n 5 $$ >/dev/null", 300, "5 0\n300\n"),
    ] {
        // CAP_SYS_RESOURCE is 24; a container lacks it, and real VMs are tested as well.
        let may_lower = field("self", "CapEff") & 1 << 24 != 0;
        let agent_score = if may_lower { -900 } else { score };
        let script = format!("{{ {preparation}; }} 2>/dev/null; exec \"$0\" \"$@\"");
        let agent = behind(&["sh", "-c", &script]).await;
        let seen = shell(&agent, STANDING).await.stdout;
        assert_eq!(seen, format!("-20 3 {agent_score}\n{program}"), "{preparation}");
    }
}

/// Starts an agent as the user and group 65534, without supplementary groups, on `agent.sock` in `dir`.
async fn unprivileged(dir: &Path, flags: &[&str]) -> (Ended, PathBuf) {
    rustix::fs::chown(dir, Some(rustix::process::Uid::from_raw(65534)), None).unwrap();
    let socket = dir.join("agent.sock");
    let binary = dir.join("minions-agent");
    support::copy_program(&binary);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]).arg(&binary);
    command.args(["--listen", &support::listen_value(&socket)]).args(flags);
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let agent = Ended(command.stderr(log).spawn().unwrap());
    support::until("the agent listens", async || socket.exists().then_some(())).await;
    (agent, socket)
}

#[tokio::test]
async fn an_agent_without_privileges_serves_nevertheless() {
    let dir = tempfile::tempdir().unwrap();
    let (_agent, socket) = unprivileged(dir.path(), &[]).await;
    assert!(!hostname(&socket).await.is_empty());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for what in ["set oom_score_adj to -900", "set the nice value to -20"] {
        assert_eq!(log.matches(what).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn an_agent_without_privileges_refuses_a_group_that_it_cannot_give() {
    for (user, allowed) in [("65534", true), ("65534:65534", true), ("65534:1", false)] {
        let dir = tempfile::tempdir().unwrap();
        let (_agent, socket) = unprivileged(dir.path(), &["--exec-user", user]).await;
        let stream = minions_proto::hybrid::dial(&socket, 1024, SOON).await.unwrap();
        let mut connection = minions_proto::connection::Connection::new(stream);
        let id = Exec { command: "id".into(), args: ["-g".into()].into(), timeout_ms: None };
        let ran = support::answer(&mut connection, &id).await;
        assert_eq!(ran.is_ok(), allowed, "{user}: {ran:?}");
    }
}
