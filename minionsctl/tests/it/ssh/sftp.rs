//! The subsystem `sftp`, with the clients of OpenSSH and the agent as a process.

use super::guest::SshGuest;
use super::memory::peak;
use super::programs::{noise, proxy_of};
use crate::shared::command::{Ran, Running};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::agent_process::AgentProcess;
use testkit::wait::until;

/// Length of the large file: far beyond every window and buffer on its way.
const LARGE: usize = 64 * 1024 * 1024;

/// A VM `files` with the agent as a process, because only the agent's own program serves file sessions.
pub(super) struct SftpGuest {
    pub(super) ssh: SshGuest,
    agent: AgentProcess,
}

impl SftpGuest {
    pub(super) async fn start() -> Self {
        let ssh = SshGuest::start().await;
        let agent = AgentProcess::start(ssh.guest.daemon.sockets(), "files", &[]);
        ssh.guest.daemon.until_state("files", "ready").await;
        Self { ssh, agent }
    }

    /// Returns a file of the test. Guest and client have the same file system.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.ssh.guest.file(name)
    }

    /// Returns the text of a path for a batch or a command line.
    fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    fn sftp(&self, host: &str, options: &[&str]) -> Command {
        let config = self.ssh.config.to_str().unwrap();
        let fixed = ["--kill-after=5", "120", "sftp", "-F", config, "-b", "-"];
        self.ssh.client("timeout", &[&fixed[..], options, &[host]].concat())
    }

    /// Runs a batch as `host`, in the directory of the test on both sides.
    #[track_caller]
    fn batch_of(&self, host: &str, options: &[&str], commands: &str) -> Ran {
        let mut sftp = self.sftp(host, options);
        sftp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = sftp.spawn().unwrap();
        let dir = self.text("");
        let script = format!("cd {dir}\nlcd {dir}\n{commands}\n");
        // The client ends at the first command that fails.
        let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    }

    #[track_caller]
    fn batch(&self, commands: &str) -> Ran {
        self.batch_of("files.minions", &[], commands)
    }

    #[track_caller]
    fn scp(&self, args: &[&str]) -> Ran {
        let config = self.ssh.config.to_str().unwrap();
        Ran::of(&mut self.ssh.client("scp", &[&["-q", "-F", config], args].concat()))
    }

    /// Returns the processes of file sessions of this test's agent.
    fn sessions(&self) -> Vec<String> {
        sessions_of(self.agent.pid())
    }
}

fn sessions_of(agent: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{agent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children = lists.collect::<String>();
    let is_session = |pid: &&str| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(7).any(|word| word == b"file-op")
    };
    children.split_whitespace().filter(is_session).map(str::to_owned).collect()
}

fn hash(file: &Path) -> String {
    Sha256::digest(fs::read(file).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[track_caller]
fn assert_equal(one: &Path, other: &Path) {
    let status = Command::new("diff").arg("-r").args([one, other]).status().unwrap();
    assert!(status.success(), "{} and {} differ", one.display(), other.display());
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().mode() & 0o7777
}

/// Creates a tree with a directory, an empty file, many small files, and a program.
fn tree(at: &Path) {
    fs::create_dir_all(at.join("deep/er")).unwrap();
    fs::write(at.join("deep/er/noise"), noise(1024 * 1024 + 8)).unwrap();
    fs::write(at.join("empty"), "").unwrap();
    (0..300).for_each(|number| fs::write(at.join(format!("deep/f{number}")), "x").unwrap());
    fs::write(at.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at.join("run"), fs::Permissions::from_mode(0o750)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_copies_lists_and_changes_files() {
    let guest = SftpGuest::start().await;
    tree(&guest.file("tree"));
    guest.batch("put -r tree there\nget -r there back").assert(0, "", "");
    assert_equal(&guest.file("tree"), &guest.file("there"));
    assert_equal(&guest.file("tree"), &guest.file("back"));

    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let run = guest.file("tree/run");
    fs::File::options().write(true).open(&run).unwrap().set_modified(old).unwrap();
    guest.batch("put -p tree/run kept\nget -p kept kept2").assert(0, "", "");
    for copy in ["kept", "kept2"] {
        let copied = fs::metadata(guest.file(copy)).unwrap();
        assert_eq!((copied.mtime(), mode(&guest.file(copy))), (1_000_000_000, 0o750), "{copy}");
    }
    let listed = guest.batch("ls -l\nls -la there\npwd");
    listed.assert(0, "-rwxr-x---    1 0        0              10 2001-09-09 01:46 kept\n", "");
    listed.assert(0, "drwxr-xr-x    3 0        0 ", "").assert(0, " ..\n", "");
    listed.assert(0, &format!("directory: {}\n", guest.text("").trim_end_matches('/')), "");

    let commands = "mkdir d\nrename kept d/moved\nln d/moved hard\nln -s d/moved link\nchmod 4711 d/moved\n\
                    chown 12 d/moved\nchgrp 13 d/moved\nrm link\ndf\ndf -h .\nmkdir e\nrmdir e";
    guest.batch(commands).assert(0, "%Capacity", "");
    let moved = fs::metadata(guest.file("d/moved")).unwrap();
    assert_eq!((moved.nlink(), moved.uid(), moved.gid()), (2, 12, 13));
    assert!(!guest.file("e").exists() && fs::symlink_metadata(guest.file("link")).is_err());
    // The client renames with the extension, which replaces a file; a directory is not replaced.
    fs::write(guest.file("new"), "new").unwrap();
    guest.batch("rename new hard").assert(0, "", "");
    assert_eq!(fs::read(guest.file("hard")).unwrap(), b"new");
    guest.batch("rename hard d").assert(1, "", "Failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn scp_copies_a_tree_and_a_large_file_both_ways() {
    let guest = SftpGuest::start().await;
    tree(&guest.file("tree"));
    symlink("run", guest.file("tree/link")).unwrap();
    fs::write(guest.file("tree/large"), noise(LARGE)).unwrap();
    let there = format!("files.minions:{}", guest.text("there"));
    guest.scp(&["-r", "-p", &guest.text("tree"), &there]).assert(0, "", "");
    guest.scp(&["-r", &there, &guest.text("back")]).assert(0, "", "");
    for copy in ["there", "back"] {
        assert_equal(&guest.file("tree"), &guest.file(copy));
        assert_eq!(hash(&guest.file(copy).join("large")), hash(&guest.file("tree/large")));
        assert_eq!(mode(&guest.file(copy).join("run")), 0o750);
    }
    let missing = guest.scp(&[&format!("{there}/nope"), &guest.text("x")]);
    missing.assert(1, "", "No such file or directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_in_flight_transfer_the_same_bytes_and_a_transfer_resumes() {
    let guest = SftpGuest::start().await;
    fs::write(guest.file("large"), noise(LARGE)).unwrap();
    let expected = hash(&guest.file("large"));
    let options = ["-B", "200000", "-R", "900"];
    let ran = guest.batch_of("files.minions", &options, "put large there\nget there back");
    ran.assert(0, "", "");
    assert_eq!([hash(&guest.file("there")), hash(&guest.file("back"))], [&*expected; 2]);
    for part in ["there", "back"] {
        let file = fs::File::options().write(true).open(guest.file(part)).unwrap();
        file.set_len(LARGE as u64 / 3 + 1).unwrap();
    }
    guest.batch("reput large there\nreget there back").assert(0, "", "");
    assert_eq!([hash(&guest.file("there")), hash(&guest.file("back"))], [&*expected; 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_the_rights_of_the_login() {
    let guest = SftpGuest::start().await;
    fs::write(guest.file("secret"), "s").unwrap();
    fs::set_permissions(guest.file("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(guest.file(""), fs::Permissions::from_mode(0o711)).unwrap();
    let run = |commands: &str| guest.batch_of("nobody@files.minions", &[], commands);
    run("get secret stolen").assert(1, "", "Permission denied");
    run("put secret planted").assert(1, "", "Permission denied");
    run("chmod 666 secret").assert(1, "", "Permission denied");
    run("rm secret").assert(1, "", "Permission denied");
    run("ls").assert(0, "", "Permission denied");
    fs::create_dir(guest.file("open")).unwrap();
    fs::set_permissions(guest.file("open"), fs::Permissions::from_mode(0o777)).unwrap();
    run("put secret open/mine").assert(0, "", "");
    let nobody = Ran::of(Command::new("id").args(["-u", "nobody"])).stdout;
    let owner = fs::metadata(guest.file("open/mine")).unwrap().uid().to_string();
    assert_eq!(owner, String::from_utf8(nobody).unwrap().trim());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_bytes_pass_unchanged() {
    let guest = SftpGuest::start().await;
    let name = OsStr::from_bytes(b"odd\xff \x01\xc3 \"name");
    fs::create_dir(guest.file("from")).unwrap();
    fs::write(guest.file("from").join(name), "x").unwrap();
    guest.batch("put -r from there\nget -r there back").assert(0, "", "");
    for copy in ["there", "back"] {
        assert_eq!(fs::read(guest.file(copy).join(name)).unwrap(), b"x", "{copy}");
    }
}

/// File system of 1 MiB. Dropping it unmounts it.
struct FullDisk(PathBuf);

impl FullDisk {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&at);
        assert!(mount.status().unwrap().success());
        Self(at)
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // It fails only if the mount is already gone.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_a_full_disk_and_a_missing_file_are_failures_and_the_session_continues() {
    let guest = SftpGuest::start().await;
    guest.ssh.guest.fifo("fifo");
    fs::write(guest.file("small"), "x").unwrap();
    fs::write(guest.file("large"), noise(4 * 1024 * 1024)).unwrap();
    let full = FullDisk::mount(guest.file("full"));
    let commands =
        "-get fifo a\n-put small fifo\n-put large full/large\n-get nope b\nput small after";
    let ran = guest.batch(commands);
    drop(full);
    ran.assert(0, "", "fifo").assert(0, "", "not a regular file");
    ran.assert(0, "", "write remote").assert(0, "", "/full/large\": Failure");
    assert_eq!(fs::read(guest.file("after")).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_client_and_a_regular_end_leave_no_process() {
    let guest = SftpGuest::start().await;
    guest.batch("pwd").assert(0, "", "");
    until("the process of the session has ended", || guest.sessions().is_empty());
    fs::write(guest.file("large"), noise(LARGE)).unwrap();
    let mut sftp = guest.sftp("files.minions", &["-l", "80000"]);
    let mut running = Running::start(sftp.stdin(Stdio::piped()));
    let mut stdin = running.child.stdin.take().unwrap();
    writeln!(stdin, "put {0} {0}.there", guest.text("large")).unwrap();
    let there = guest.file("large.there");
    until("the transfer runs", || fs::metadata(&there).is_ok_and(|file| file.len() > 0));
    assert_eq!(guest.sessions().len(), 1);
    // `timeout` is the child; its child is the client.
    let client = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.child.id()));
    let client = client.unwrap().trim().to_owned();
    assert!(Command::new("kill").args(["-KILL", &client]).status().unwrap().success());
    until("the process of the session has ended", || guest.sessions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_sessions_is_named_on_standard_error() {
    let guest = SftpGuest::start().await;
    let run =
        |host: &str, subsystem: &str| Ran::of(&mut guest.ssh.limited_ssh(&["-s", host, subsystem]));
    let old = run("web-1.minions", "sftp");
    old.assert(255, "", "subsystem request failed").assert(255, "", "minionsctl: sftp: ");
    old.assert(255, "", "add `files` to the option --allow of minions-agent");
    run("files.minions", "netconf").assert(255, "", "subsystem request failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_packet_ends_the_session_with_a_message() {
    let guest = SftpGuest::start().await;
    for (bytes, message) in [
        (&[0xff; 8][..], "sent a packet of 4294967295 bytes"),
        (&[0, 0, 0, 2, 3, 0], "sent a malformed packet"),
    ] {
        let mut ssh = guest.ssh.limited_ssh(&["-s", "files.minions", "sftp"]);
        let mut running = Running::start(ssh.stdin(Stdio::piped()));
        let mut stdin = running.child.stdin.take().unwrap();
        stdin.write_all(bytes).unwrap();
        running.end().assert(255, "", message);
    }
    until("the processes of the sessions have ended", || guest.sessions().is_empty());
}

/// Returns a packet of the protocol.
pub(super) fn packet(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_the_client_reads_late_do_not_accumulate() {
    const READS: u32 = 800;
    const LENGTH: usize = 255 * 1024;
    let guest = SftpGuest::start().await;
    fs::write(guest.file("file"), noise(LENGTH)).unwrap();
    let mut ssh = guest.ssh.ssh(&["-s", "files.minions", "sftp"]);
    let mut child = ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let path = guest.text("file");
    let path_len = u32::try_from(path.len()).unwrap().to_be_bytes();
    let (flags, attributes) = (1_u32.to_be_bytes(), [0; 4]);
    let mut requests = packet(&[&[1], &3_u32.to_be_bytes()]);
    requests.extend(packet(&[&[3], &[0; 4], &path_len, path.as_bytes(), &flags, &attributes]));
    let handle = [0, 0, 0, 4, 0, 0, 0, 0];
    let length = u32::try_from(LENGTH).unwrap().to_be_bytes();
    for id in 1..=READS {
        requests.extend(packet(&[&[5], &id.to_be_bytes(), &handle, &[0; 8], &length]));
    }
    let mut reply = || {
        let mut length = [0; 4];
        stdout.read_exact(&mut length).unwrap();
        let mut reply = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stdout.read_exact(&mut reply).unwrap();
        reply
    };
    stdin.write_all(&requests).unwrap();
    assert_eq!(reply()[..5], [2, 0, 0, 0, 3], "the version");
    let proxy = proxy_of(child.id());
    let before = peak(proxy);
    assert_eq!(reply(), [&[102, 0, 0, 0, 0][..], &handle].concat());
    for id in 1..=READS {
        let data = reply();
        assert_eq!((data[0], &data[1..5]), (103, &id.to_be_bytes()[..]));
        assert_eq!(data.len(), 9 + LENGTH);
    }
    let after = peak(proxy);
    assert!(after < before + 48 * 1024, "{before} KiB, then {after} KiB");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ends_ends_the_client_with_a_message() {
    let SftpGuest { ssh, agent } = SftpGuest::start().await;
    let mut client = ssh.limited_ssh(&["-s", "files.minions", "sftp"]);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&packet(&[&[1], &3_u32.to_be_bytes()])).unwrap();
    // The reply proves that the session is open.
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 9]).unwrap();
    drop(agent);
    let ran = Ran::from(child.wait_with_output().unwrap());
    ran.assert(255, "", "minionsctl: sftp: minionsd closed the stream");
}
