//! Contexts, and the precedence of the settings.

use crate::shared::command::{Ran, minionsctl};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use tempfile::TempDir;
use testkit::daemon::TestDaemon;

/// A user's settings.
struct User(TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = minionsctl(args);
        command.env("XDG_CONFIG_HOME", self.0.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_has_an_address_and_credentials_and_can_be_selected() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let user = User::new();
    let unix = daemon.unix_socket();
    let token = user.0.path().join("token");
    fs::write(&token, "a-token-that-is-only-for-this-test").unwrap();
    let add = |name: &str, host: &str| user.run(&["context", "add", name, "--host", host]);
    add("here", unix.to_str().unwrap()).assert(0, "", "");
    let far =
        ["context", "add", "far", "--host", "vm-host", "--token-file", token.to_str().unwrap()];
    user.run(&far).assert(0, "", "");
    add("here", "/other").assert(1, "", "the context \"here\" exists");
    add("default", "/other").assert(1, "", "choose another name");
    add("a/b", "/other").assert(1, "", "invalid name of a context \"a/b\"");
    add("bad", "ftp://x").assert(1, "", "https://HOST:PORT");
    user.run(&["context", "add", "bad"]).assert(1, "", "give it with --host");

    user.run(&["--context", "here", "ls", "-q"]).assert(0, "web-1\n", "");
    user.run(&["context", "current"]).assert(0, "default\n", "");
    user.run(&["context", "use", "here"]).assert(0, "", "");
    user.run(&["ls", "-q"]).assert(0, "web-1\n", "");
    let listed = user.run(&["context", "ls"]);
    listed.assert(0, "*        here  unix:///", "").assert(0, "https://vm-host:7070", "");
    user.run(&["context", "ls", "-o", "name"]).assert(0, "far\nhere\n", "");
    let file = user.0.path().join("minions/contexts.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&file).unwrap().contains("only-for-this-test"));

    // The variable overrides the current context, and --context overrides the variable.
    let with = |variable: &str, value: &str, args: &[&str]| {
        Ran::of(user.command(args).env(variable, value))
    };
    with("MINIONS_HOST", "/none.sock", &["ls"]).assert(1, "", "at unix:///none.sock");
    with("MINIONS_HOST", "", &["ls", "-q"]).assert(0, "web-1\n", "");
    with("MINIONS_HOST", "/none.sock", &["--context", "here", "ls", "-q"]).assert(0, "web-1\n", "");
    with("MINIONS_CONTEXT", "nope", &["ls"]).assert(1, "", "must be one of far, here");
    user.run(&["--host", "/none.sock", "ls"]).assert(1, "", "at unix:///none.sock");
    user.run(&["--host", "/x", "--context", "here", "ls"]).assert(2, "", "cannot be used with");
    // On both sides of the command, the parser sees no conflict.
    let excluded = "leave --host and --socket out";
    user.run(&["--host", "/x", "ls", "--context", "here"]).assert(1, "", excluded);
    user.run(&["--context", "here", "ls", "--host", "/x"]).assert(1, "", excluded);

    user.run(&["context", "use", "default"]).assert(0, "", "");
    user.run(&["context", "current"]).assert(0, "default\n", "");
    user.run(&["context", "use", "here"]).assert(0, "", "");
    user.run(&["context", "rm", "here"]).assert(0, "", "");
    user.run(&["context", "current"]).assert(0, "default\n", "");
    user.run(&["context", "rm", "here"]).assert(1, "", "there is no context \"here\"");
}

#[test]
fn credentials_of_the_configuration_file_are_not_sent_to_the_host_of_a_context() {
    let user = User::new();
    fs::create_dir(user.0.path().join("minions")).unwrap();
    let config = user.0.path().join("minions/config.toml");
    fs::write(config, "token_file = \"/nowhere/token\"\n").unwrap();
    user.run(&["--host", "/none.sock", "ls"]).assert(1, "", "cannot read /nowhere/token");
    user.run(&["context", "add", "far", "--host", "/far.sock"]).assert(0, "", "");
    user.run(&["--context", "far", "ls"]).assert(1, "", "at unix:///far.sock");
    // Nor are those of the environment.
    let mut listed = user.command(&["--context", "far", "ls"]);
    listed.env("MINIONS_TOKEN_FILE", "/nowhere/of-the-environment");
    Ran::of(&mut listed).assert(1, "", "at unix:///far.sock");
    user.run(&["context", "use", "far"]).assert(0, "", "");
    let mut listed = user.command(&["ls"]);
    listed.env("MINIONS_TOKEN_FILE", "/nowhere/of-the-environment");
    Ran::of(&mut listed).assert(1, "", "at unix:///far.sock");
    user.run(&["context", "use", "default"]).assert(0, "", "");
    // A file without a host is for this machine.
    let elsewhere = ["--host", "https://nowhere.invalid:1", "ls"];
    user.run(&elsewhere).assert(1, "", "https://nowhere.invalid:1");
    assert!(!user.run(&elsewhere).stderr.contains("/nowhere/token"));
}

#[test]
fn a_malformed_file_of_contexts_is_reported_and_not_replaced() {
    let user = User::new();
    fs::create_dir(user.0.path().join("minions")).unwrap();
    let file = user.0.path().join("minions/contexts.toml");
    fs::write(&file, "current = 1\n").unwrap();
    for args in [&["context", "add", "a", "--host", "/x"][..], &["ls"], &["context", "ls"]] {
        user.run(args).assert(1, "", "invalid configuration file");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "current = 1\n");
}
