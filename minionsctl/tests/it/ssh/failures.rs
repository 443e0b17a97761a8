//! Failures over SSH: each has one clear line and an exit code other than 0.

use super::guest::SshGuest;
use crate::shared::command::{Ran, Running};
use std::fs;
use std::io::Write;
use std::process::Stdio;
use testkit::fake_vmm::Behaviour;
use testkit::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_vm_user_or_daemon_is_named() {
    let ssh = SshGuest::start().await;
    let run = |host: &str| Ran::of(&mut ssh.limited_ssh(&[host, "--", "true"]));
    run("nope.minions").assert(255, "", "nope").assert(255, "", "`minionsctl ls` lists the VMs");
    run("no-such-user@web-1.minions").assert(255, "", "the guest has no user \"no-such-user\"");
    run("a:b@web-1.minions").assert(255, "", "invalid user name \"a:b\"");
    run("-x.minions").assert(255, "", "");
    let away = ["--host", "http://127.0.0.1:1", "ssh-config"];
    let mut away = crate::shared::command::minionsctl(&away);
    let away = Ran::of(away.env("XDG_STATE_HOME", ssh.guest.file("state")));
    fs::write(&ssh.config, &away.stdout).unwrap();
    run("web-1.minions").assert(255, "", "cannot reach minionsd at http://127.0.0.1:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_without_a_stream_to_the_guest_are_refused() {
    let ssh = SshGuest::start().await;
    let run = |args: &[&str]| Ran::of(&mut ssh.limited_ssh(args));
    run(&["-s", "web-1.minions", "sftp"]).assert(255, "", "subsystem request failed");
    // The agent of this VM may not forward.
    let remote = ["-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", "web-1.minions", "true"];
    run(&remote).assert(255, "", "remote port forwarding failed").assert(255, "", "--allow");
    run(&["-A", "web-1.minions", "echo ${SSH_AUTH_SOCK-none}"]).assert(0, "none\n", "");
    // The client must have a display to ask for its forwarding.
    let mut display = ssh.limited_ssh(&["-X", "web-1.minions", "echo ${DISPLAY-none}"]);
    Ran::of(display.env("DISPLAY", ":99")).assert(0, "none\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_beyond_a_limit_is_refused_and_the_next_one_works() {
    let ssh = SshGuest::start().await;
    let word = "x".repeat(50_000);
    let run = |times: usize| {
        Ran::of(
            &mut ssh
                .limited_ssh(&[&["web-1.minions", ":"], &vec![word.as_str(); times][..]].concat()),
        )
    };
    run(2).assert(0, "", "");
    // Longer than one argument of a program may be in the guest, and than a packet of SSH may be.
    run(3).assert(255, "", "minionsctl: ");
    run(8).assert(255, "", "");
    let mut command = ssh.ssh(&["-o", "SendEnv=V*", "web-1.minions", "--", "env | grep -c ^V"]);
    command.envs((0..600).map(|number| (format!("V{number:03}"), "x")));
    Ran::of(&mut command).assert(0, "512\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_speak_ssh_is_told_so() {
    let ssh = SshGuest::start().await;
    let proxy = |bytes: &[u8]| {
        let mut command = ssh.ctl(&["ssh-proxy", "web-1"]);
        let mut running = Running::start(command.stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        // The proxy may end before it has read everything.
        let _ = stdin.write_all(bytes);
        drop(stdin);
        assert!(running.line().starts_with("SSH-2.0-minionsctl_"));
        running.end()
    };
    let packet = [&b"SSH-2.0-x\r\n"[..], &[0xff; 64]].concat();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'x'; 100_000], &packet] {
        proxy(garbage).assert(125, "", "error: the SSH connection failed: ");
    }
    proxy(b"").assert(0, "", "");
    let mut file = ssh.ctl(&["ssh-proxy", "web-1"]);
    Ran::of(file.stdin(Stdio::null())).assert(125, "", "ssh starts it as ProxyCommand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_stops_ends_the_session_with_a_message() {
    let ssh = SshGuest::start().await;
    let mut command = ssh.ssh(&["web-1.minions", "--", "echo up; exec sleep 1000"]);
    let mut running = Running::start(&mut command);
    assert_eq!(running.line(), "up");
    ssh.guest.vm.switch_to(Behaviour::Refuses);
    ssh.guest.vm.cut();
    running.end().assert(255, "", "minionsctl: lost the connection to the program");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_key_is_refused_by_the_client() {
    let ssh = SshGuest::start().await;
    ssh.run("true").assert(0, "", "");
    let key = ssh.guest.file("state/minions/ssh_host_ed25519_key");
    let known = ssh.guest.file("state/minions/known_hosts");
    let before = fs::read(&known).unwrap();
    fs::remove_file(&key).unwrap();
    // The proxy creates another key and lists it. The client reads a list that names the old one only.
    let old = ssh.guest.file("old_known_hosts");
    fs::write(&old, before).unwrap();
    let option = format!("UserKnownHostsFile={}", old.display());
    let ran = Ran::of(&mut ssh.limited_ssh(&["-o", &option, "web-1.minions", "--", "true"]));
    ran.assert(255, "", "REMOTE HOST IDENTIFICATION HAS CHANGED");
    until("the list names the new key", || fs::read(&known).unwrap() != fs::read(&old).unwrap());
    ssh.run("true").assert(0, "", "");
}
