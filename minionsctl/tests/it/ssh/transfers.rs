//! Programs that use ssh as their transport.

use super::guest::SshGuest;
use super::programs::noise;
use crate::shared::command::Ran;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

#[track_caller]
fn assert_equal(one: &Path, other: &Path) {
    let status = Command::new("diff").arg("-r").args([one, other]).status().unwrap();
    assert!(status.success(), "{} and {} differ", one.display(), other.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn rsync_copies_a_tree_both_ways() {
    let ssh = SshGuest::start().await;
    let (from, there, back) =
        (ssh.guest.file("from"), ssh.guest.file("there"), ssh.guest.file("back"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    fs::write(from.join("deep/er/noise"), noise(3 * 1024 * 1024)).unwrap();
    fs::write(from.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
    (0..200).for_each(|number| fs::write(from.join(format!("f{number}")), "x").unwrap());
    symlink("deep/er", from.join("link")).unwrap();
    let rsync = |source: &str, destination: &str| {
        let transport = ssh.command_line();
        let args = ["-a", "-e", &transport, source, destination];
        Ran::of(&mut ssh.client("rsync", &args)).assert(0, "", "");
    };
    let remote = format!("web-1.minions:{}/", there.display());
    rsync(&format!("{}/", from.display()), &remote);
    assert_equal(&from, &there);
    rsync(&remote, &format!("{}/", back.display()));
    assert_equal(&from, &back);
    assert_eq!(fs::metadata(back.join("run")).unwrap().permissions().mode() & 0o777, 0o750);
}

#[tokio::test(flavor = "multi_thread")]
async fn git_clones_and_pushes() {
    let ssh = SshGuest::start().await;
    let (bare, work) = (ssh.guest.file("bare.git"), ssh.guest.file("work"));
    let transport = ssh.command_line();
    let git = |args: &[&str]| {
        let settings =
            ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "safe.directory=*"];
        let mut git = ssh.client("git", &[&settings[..], args].concat());
        let ran = Ran::of(git.env("GIT_SSH_COMMAND", &transport));
        ran.assert(0, "", "");
        String::from_utf8(ran.stdout).unwrap()
    };
    let (bare, work) = (bare.to_str().unwrap(), work.to_str().unwrap());
    git(&["init", "-q", "--bare", bare]);
    git(&["clone", "-q", &format!("web-1.minions:{bare}"), work]);
    fs::write(format!("{work}/noise"), noise(2 * 1024 * 1024)).unwrap();
    git(&["-C", work, "add", "noise"]);
    git(&["-C", work, "commit", "-q", "-m", "noise"]);
    git(&["-C", work, "push", "-q", "origin", "HEAD:refs/heads/main"]);
    let pushed = git(&["-C", bare, "rev-parse", "main"]);
    assert_eq!(pushed, git(&["-C", work, "rev-parse", "HEAD"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_in_its_older_protocol_copies_a_tree_both_ways() {
    let ssh = SshGuest::start().await;
    let (from, there, back) =
        (ssh.guest.file("from"), ssh.guest.file("there"), ssh.guest.file("back"));
    fs::create_dir_all(from.join("deep")).unwrap();
    fs::write(from.join("deep/noise"), noise(1024 * 1024)).unwrap();
    let config = ssh.config.to_str().unwrap();
    let scp = |source: &str, destination: &str| {
        let args = ["-O", "-q", "-r", "-F", config, source, destination];
        Ran::of(&mut ssh.client("scp", &args)).assert(0, "", "");
    };
    let remote = format!("web-1.minions:{}", there.display());
    scp(from.to_str().unwrap(), &remote);
    assert_equal(&from, &there);
    scp(&remote, back.to_str().unwrap());
    assert_equal(&from, &back);
}

/// More than the proxy keeps of the input, and than the window of ssh.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_stream_passes_both_ways_at_once() {
    let ssh = SshGuest::start().await;
    let bytes = noise(48 * 1024 * 1024);
    let mut command = ssh.limited_ssh(&["web-1.minions", "--", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), bytes.clone());
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    feeder.join().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(output == bytes, "the output differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_its_input_can_write() {
    let ssh = SshGuest::start().await;
    let input = noise(8 * 1024 * 1024);
    let mut command =
        ssh.limited_ssh(&["web-1.minions", "--", "head -c 20000000 /dev/zero; exit 3"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // ssh closes the pipe when the program has ended.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 20_000_000));
}
