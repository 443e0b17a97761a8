//! The agent under a service manager: a socket passed on, signs of life, a default user.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{Exec, HealthCheck};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{BINARY, RunningAgent, SOON};

/// Ended and waited for when dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A hexadecimal field of /proc/PID/status.
fn field(process: &str, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
}

#[tokio::test]
async fn what_no_allowed_request_needs_is_given_away() {
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

/// An agent that finds `listener` as descriptor 3, as sd_listen_fds(3) has it.
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
async fn a_passed_socket_is_served_and_holds_connections_while_the_agent_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("held.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let first = activated(&listener, "");
    assert!(!hostname(&path).await.is_empty());
    drop(first);
    // Nobody is there, and yet it is not refused: the manager holds the socket.
    let waiting = tokio::spawn({
        let path = path.clone();
        async move { hostname(&path).await }
    });
    let _second = activated(&listener, "--listen activated");
    assert!(!waiting.await.unwrap().is_empty());
    assert!(path.exists(), "an agent removed a file that isn't its own");
}

#[tokio::test]
async fn what_no_manager_passed_is_not_waited_for() {
    for (pid, count) in [("1", "1"), ("$$", "0"), ("$$", "1")] {
        // Descriptor 3 is a file here, where the environment claims that there is one.
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
async fn a_manager_hears_that_the_agent_is_ready_lives_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(SOON)).unwrap();
    let hear = || {
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
    assert_eq!(hear(), "READY=1");
    assert_eq!((hear(), hear()), ("WATCHDOG=1".into(), "WATCHDOG=1".into()));
    assert!(support::terminate(&mut agent).await.success());
    while hear() != "STOPPING=1" {}
}

#[tokio::test]
async fn programs_that_name_no_user_run_as_the_one_of_the_command_line() {
    let agent = RunningAgent::with_flags(&["--exec-user", "65534:65533"]).await;
    let id = Exec { command: "id".into(), args: Vec::new(), timeout_ms: None };
    let ran = agent.call(&id).await.unwrap();
    assert!(ran.stdout.contains("uid=65534") && ran.stdout.contains("gid=65533"), "{ran:?}");
    let agent = RunningAgent::with_flags(&["--exec-user", "nobody-of-this-name"]).await;
    let refused = agent.call(&id).await.unwrap_err();
    assert_eq!(refused.code, Some(minions_proto::ErrorCode::UserNotFound), "{refused:?}");
}

/// An agent behind a program that prepares what it inherits.
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
async fn an_agent_whose_parent_ignores_sigchld_loses_no_program() {
    let agent = behind(&["env", "--ignore-signal=CHLD"]).await;
    assert_eq!(shell(&agent, "exit 3").await.exit_code, 3);
}

#[tokio::test]
async fn an_agent_that_was_started_with_blocked_signals_hears_them() {
    let mut agent = behind(&["env", "--block-signal"]).await;
    assert!(support::terminate(&mut agent).await.success());
}

#[tokio::test]
async fn programs_get_neither_descriptors_nor_umask_of_the_agents_parent() {
    let agent = behind(&["sh", "-c", "umask 077; exec 7</dev/null; exec \"$0\" \"$@\""]).await;
    let seen = shell(&agent, "umask; ls /proc/self/fd | tr '\\n' ' '").await.stdout;
    // The fourth is the directory that `ls` reads.
    assert_eq!(seen, "0022\n0 1 2 3 ");
}

#[tokio::test]
async fn programs_get_nothing_that_a_service_manager_tells_the_agent() {
    // systemd.exec(5), "Environment Variables Set or Propagated by the Service Manager".
    const TOLD: [&str; 30] = [
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
        command.envs(TOLD.map(|name| (name, "x"))).env("KEPT", "x");
        command
    })
    .await;
    let seen = shell(&agent, "env").await.stdout;
    let names: Vec<_> = seen.lines().filter_map(|line| line.strip_suffix("=x")).collect();
    assert_eq!(names, ["KEPT"]);
}

/// Nice value and `oom_score_adj` of a process, and the nice values of its threads.
const STANDING: &str = "read -r pid _ </proc/$PPID/stat
    for thread in /proc/$pid/task/*; do cut -d' ' -f19 $thread/stat; done | sort -u | tr '\\n' ' '
    cat /proc/$pid/oom_score_adj; cut -d' ' -f19 /proc/self/stat; cat /proc/self/oom_score_adj";

#[tokio::test]
async fn the_agent_is_preferred_and_its_programs_are_not() {
    // As a unit, a shell, and somebody who wants all of it to yield would start it.
    for (preparation, score, program) in [
        ("echo -900 >/proc/self/oom_score_adj", 0, "0\n0\n"),
        (":", 0, "0\n0\n"),
        ("echo 300 >/proc/self/oom_score_adj; renice -n 5 $$ >/dev/null", 300, "5\n300\n"),
    ] {
        // CAP_SYS_RESOURCE is 24; a container lacks it, and real VMs are tested as well.
        let may_lower = field("self", "CapEff") & 1 << 24 != 0;
        let agent_score = if may_lower { -900 } else { score };
        let script = format!("{{ {preparation}; }} 2>/dev/null; exec \"$0\" \"$@\"");
        let agent = behind(&["sh", "-c", &script]).await;
        let seen = shell(&agent, STANDING).await.stdout;
        assert_eq!(seen, format!("-20 {agent_score}\n{program}"), "{preparation}");
    }
}

#[tokio::test]
async fn an_agent_without_privileges_serves_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    rustix::fs::chown(dir.path(), Some(rustix::process::Uid::from_raw(65534)), None).unwrap();
    let socket = dir.path().join("agent.sock");
    let binary = dir.path().join("minions-agent");
    std::fs::copy(BINARY, &binary).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--"]).arg(&binary);
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let _agent = Ended(
        command.args(["--listen", &support::listen_value(&socket)]).stderr(log).spawn().unwrap(),
    );
    support::until("the agent listens", async || socket.exists().then_some(())).await;
    assert!(!hostname(&socket).await.is_empty());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    for what in ["set oom_score_adj to -900", "set the nice value to -20"] {
        assert_eq!(log.matches(what).count(), 1, "{log}");
    }
}
