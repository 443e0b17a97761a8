//! `--timeout`, the default host, and input that cannot be read.

use crate::shared::command::minionsctl;
use std::fs::File;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testkit::daemon::TestDaemon;
use tokio::time::timeout;

/// Deadline for a command to end. Below minionsctl's own deadlines, which are 10 s and more.
const SOONER: Duration = Duration::from_secs(8);

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Simulates a stopped daemon: the kernel still accepts connections for it.
#[tokio::test]
async fn the_timeout_limits_every_command_if_the_daemon_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minionsd.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let host = format!("unix://{}", path.display());
    for args in [
        &["ls"][..],
        &["get", "web-1"],
        &["health", "web-1"],
        &["status", "web-1"],
        &["network", "web-1"],
        &["ps", "web-1"],
        &["logs", "web-1", "x"],
        &["kill", "web-1", "x"],
        &["wait", "web-1"],
        &["doctor", "web-1"],
        &["poweroff", "web-1"],
    ] {
        let command = minionsctl(&[&["--host", &host, "--timeout", "200ms"], args].concat());
        let ran = timeout(SOONER, output(command)).await;
        let ran = ran.unwrap_or_else(|_| panic!("{args:?} takes longer than its --timeout"));
        assert_eq!(ran.status.code(), Some(1), "{args:?}: {ran:?}");
        assert!(stderr(&ran).contains("no result within 200ms (--timeout)"), "{args:?}: {ran:?}");
    }
    let watch = output(minionsctl(&["--host", &host, "--timeout", "1s", "watch"])).await;
    assert!(stderr(&watch).contains("--timeout does not apply"), "{watch:?}");
}

/// Runs minionsctl in a mount namespace with the default socket, which only its group may use.
#[tokio::test]
async fn a_user_who_may_not_use_the_default_socket_reads_over_tcp() {
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/minions && \
                  touch /run/minions/minionsd.sock && chmod 660 /run/minions/minionsd.sock && \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" ls";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--", "sh", "-c", script]);
    command.arg(minionsctl(&[]).get_program());
    command.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("MINIONS_HOST");
    command.env_remove("MINIONS_TOKEN_FILE");
    let ran = output(command).await;
    let remark =
        "no permission for /run/minions/minionsd.sock (root and the group minions have it)";
    assert_eq!(stderr(&ran).matches(remark).count(), 1, "{ran:?}");
    // Nothing listens on that port in this namespace, but minionsctl has tried it.
    assert!(stderr(&ran).contains("cannot reach minionsd at http://127.0.0.1:7070"), "{ran:?}");
}

/// Each command that reads its input: as a stream, all at once, and as a request.
#[tokio::test]
async fn a_read_error_on_standard_input_is_a_failure_and_not_its_end() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let host = daemon.host();
    let dir = tempfile::tempdir().unwrap();
    // Reading at offset 0 fails with EIO.
    let broken = || File::open("/proc/self/mem").unwrap();
    let directory = || File::open("/").unwrap();
    // The standard library treats it as empty input.
    let write_only = || File::create(dir.path().join("write-only")).unwrap();
    for (code, args) in [
        (125, &["exec", "-i", "web-1", "--", "cat"][..]),
        (125, &["-o", "json", "exec", "-i", "web-1", "--", "cat"]),
        (1, &["configure-network", "web-1", "-f", "-"]),
    ] {
        for input in [broken(), directory(), write_only()] {
            let mut command = minionsctl(&[&["--host", &host], args].concat());
            command.stdin(input);
            let ran = output(command).await;
            assert_eq!(ran.status.code(), Some(code), "{args:?} {ran:?}");
            assert!(stderr(&ran).contains("cannot read standard input"), "{args:?} {ran:?}");
            assert_eq!(ran.stdout, b"", "{args:?}");
        }
    }
}

#[tokio::test]
async fn output_that_cannot_be_written_is_a_failure_of_every_command() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let host = daemon.host();
    for (code, args) in [
        (125, &["exec", "web-1", "--", "echo", "lost"][..]),
        (125, &["-o", "json", "exec", "web-1", "--", "echo", "lost"]),
        (1, &["ls"]),
        (1, &["-o", "json", "ls"]),
    ] {
        let full = || File::create("/dev/full").unwrap();
        // The standard library ignores the error.
        let read_only = || File::open("/dev/null").unwrap();
        for place in [full(), read_only()] {
            let mut command = minionsctl(&[&["--host", &host], args].concat());
            command.stdout(place).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            let ran = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap());
            let ran = ran.await.unwrap();
            assert_eq!(ran.status.code(), Some(code), "{args:?} {ran:?}");
            assert!(stderr(&ran).contains("cannot write the output"), "{args:?} {ran:?}");
        }
    }
}

#[tokio::test]
async fn a_request_file_is_limited_in_size_and_named_if_it_is_invalid() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("wrong.json");
    std::fs::write(&wrong, "{").unwrap();
    for (file, expected) in [
        ("/dev/zero", "larger than 2 MiB"),
        (wrong.to_str().unwrap(), "wrong.json contains malformed JSON"),
        ("/", "cannot read /"),
        ("/nonexistent", "cannot read /nonexistent"),
    ] {
        let ran = output(minionsctl(&["configure-network", "web-1", "-f", file])).await;
        assert_eq!(ran.status.code(), Some(1), "{file} {ran:?}");
        assert!(stderr(&ran).contains(expected), "{file} {ran:?}");
    }
}

#[tokio::test]
async fn a_file_of_settings_that_never_ends_is_refused() {
    for option in ["--token-file", "--ca-file", "--cert-file"] {
        let mut command = minionsctl(&["--host", "https://127.0.0.1:1", option, "/dev/zero", "ls"]);
        command.env_remove("MINIONS_TOKEN_FILE");
        let ran = output(command).await;
        assert_eq!(ran.status.code(), Some(1), "{option} {ran:?}");
        assert!(stderr(&ran).contains("/dev/zero: the file is larger than 4 MiB"), "{ran:?}");
    }
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("minions")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", home.path().join("minions/config.toml")).unwrap();
    let mut command = minionsctl(&["ls"]);
    command.env("XDG_CONFIG_HOME", home.path());
    let ran = output(command).await;
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(stderr(&ran).contains("config.toml: the file is larger than 4 MiB"), "{ran:?}");
}
