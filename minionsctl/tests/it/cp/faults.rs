//! Full disks, files that change while they are read, and transfers that are cut.

use super::guest::CopyGuest;
use crate::shared::command::{Ran, Running};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use testkit::wait::until;

/// Length of a file of which only a part fits between a source and an agent that does not run, in bytes.
const LARGE: u64 = 64 * 1024 * 1024;

/// A small file system. Dropping it unmounts it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, options: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
        assert!(mount.status().unwrap().success(), "mounting requires root");
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_or_read_only_disk_keeps_no_part_of_a_file() {
    let guest = CopyGuest::start().await;
    File::create(guest.path("large")).unwrap().write_all(&vec![b'x'; 8 * 1024 * 1024]).unwrap();
    guest.write("tree/a", "A");
    fs::copy(guest.path("large"), guest.path("tree/large")).unwrap();
    let _disk = SmallDisk::mount(&guest.path("disk"), "size=1m");
    guest.write("disk/large", "old");
    for (source, options) in [("large", "-q"), ("large", "-r"), ("tree", "-r")] {
        for (from, to) in [
            (guest.text(source), guest.of_vm("disk")),
            (guest.of_vm(source), guest.text("disk")),
            (guest.of_vm(source), guest.of_vm("disk")),
        ] {
            let ran = guest.run(&[options, &from, &to]);
            assert_eq!(ran.code, 1, "{from} {to}: {}", ran.stderr);
            assert!(ran.stderr.contains("No space left"), "{from} {to}: {}", ran.stderr);
            guest.assert_content("disk/large", "old");
            assert!(!guest.path("disk/tree/large").exists());
            let _ = fs::remove_dir_all(guest.path("disk/tree"));
        }
    }
    assert_eq!(guest.names("disk"), ["large"]);

    let status = Command::new("mount").args(["-o", "remount,ro"]).arg(guest.path("disk")).status();
    assert!(status.unwrap().success());
    for (from, to) in
        [(guest.text("tree/a"), guest.of_vm("disk")), (guest.of_vm("tree/a"), guest.text("disk"))]
    {
        for option in ["-q", "-r"] {
            guest.run(&[option, &from, &to]).assert(1, "", "Read-only file system");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_not_opened_and_a_file_is_not_a_directory() {
    let guest = CopyGuest::start().await;
    let fifo = Command::new("mkfifo").arg(guest.path("fifo")).status().unwrap();
    assert!(fifo.success());
    guest.mkdir("to");
    guest.run(&["fifo", &guest.of_vm("to")]).assert(1, "", "not a regular file");
    guest.run(&[&guest.of_vm("fifo"), "to"]).assert(1, "", "named pipe");
    guest.write("from/name", "x");
    guest.mkdir("to/name");
    for option in ["-q", "-r"] {
        guest.run(&[option, "from/name", &guest.of_vm("to")]).assert(1, "", "irectory");
        guest.run(&[option, &guest.of_vm("from/name"), "to"]).assert(1, "", "irectory");
    }
    guest.mkdir("from-2/name");
    guest.write("to-2/name", "x");
    guest.run(&["-r", "from-2/name", &guest.of_vm("to-2")]).assert(1, "", "ot a directory");
    guest.run(&["-r", &guest.of_vm("from-2/name"), "to-2"]).assert(1, "", "ot a directory");
    guest.assert_content("to-2/name", "x");
    assert_eq!(guest.names("to"), ["name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_this_user_may_not_read_is_named() {
    let guest = CopyGuest::start().await;
    guest.write("tree/a", "A");
    guest.write("tree/secret", "x");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(guest.path("tree/secret"), closed).unwrap();
    // The daemon accepts this user by its token.
    guest.write("token", guest.daemon.bearer().trim_start_matches("Bearer "));
    let url = guest.daemon.url("");
    let token = guest.text("token");
    let as_nobody = |args: &[&str]| {
        let all = [&["--token-file", &token, "cp"], args].concat();
        let command = crate::shared::command::ctl(url.trim_end_matches('/'), &all);
        let program = guest.path("minionsctl");
        if !program.exists() {
            // By another process: a copy that this one has written may still be open in a child of another test.
            let copy = Command::new("cp").arg(command.get_program()).arg(&program).status();
            assert!(copy.unwrap().success());
        }
        let mut copied = Command::new(program);
        copied.args(command.get_args()).current_dir(guest.path("")).uid(65_534).gid(65_534);
        copied.env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null());
        Ran::of(&mut copied)
    };
    let ran = as_nobody(&["-r", "tree", &guest.of_vm("in")]);
    ran.assert(1, "", "secret\": Permission denied");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(guest.names("in"), ["a"]);
    as_nobody(&["tree/secret", &guest.of_vm("in")]).assert(1, "", "Permission denied");
    as_nobody(&[&guest.of_vm("tree/a"), "out"]).assert(1, "", "Permission denied");
    // A user other than root keeps times and modes with -a, and owns the copies.
    guest.mkdir("open");
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(guest.path("open"), writable).unwrap();
    as_nobody(&["-a", &guest.of_vm("tree"), "open"]).assert(0, "", "");
    let secret = fs::metadata(guest.path("open/tree/secret")).unwrap();
    assert_eq!((secret.uid(), secret.mode() & 0o7777), (65_534, 0o600));
    let modified = fs::metadata(guest.path("tree/secret")).unwrap().modified().unwrap();
    assert_eq!(secret.modified().unwrap(), modified);
}

/// Stops a process. Dropping this continues it.
struct Stopped(Pid);

impl Stopped {
    fn process(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Returns the number of bytes that a process has read from files.
fn bytes_read(child: &Child) -> u64 {
    io_counter(child, "rchar: ")
}

/// Returns the number of bytes that a process has written to files.
fn bytes_written(child: &Child) -> u64 {
    io_counter(child, "wchar: ")
}

fn io_counter(child: &Child, name: &str) -> u64 {
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap();
    io.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
}

/// Starts a copy of the large file, and waits until it has begun, while the agent does not run.
fn begin(guest: &CopyGuest, args: &[&str]) -> (Running, Stopped) {
    let mut command = guest.cp(args);
    // The destination is examined before the agent stops.
    let running = Running::start(&mut command);
    until("the source is read", || bytes_read(&running.child) > 512 * 1024);
    let stopped = Stopped::process(guest.agents[0].pid());
    (running, stopped)
}

fn plant(guest: &CopyGuest) {
    let file = File::create(guest.path("large")).unwrap();
    file.set_len(LARGE).unwrap();
    // Data, not holes, which are not transferred.
    let mut file = OpenOptions::new().write(true).open(guest.path("large")).unwrap();
    for _ in 0..LARGE / (1024 * 1024) {
        file.write_all(&vec![b'x'; 1024 * 1024]).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_becomes_shorter_is_not_copied() {
    let guest = CopyGuest::start().await;
    for option in ["-q", "-r"] {
        plant(&guest);
        guest.mkdir("to");
        let (running, stopped) = begin(&guest, &[option, "large", &guest.of_vm("to")]);
        OpenOptions::new().write(true).open(guest.path("large")).unwrap().set_len(1).unwrap();
        drop(stopped);
        let ran = running.end();
        assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains("large"), "{}", ran.stderr);
        assert!(guest.names("to").is_empty(), "{option}: {:?}", guest.names("to"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_grows_is_copied_with_its_first_length() {
    let guest = CopyGuest::start().await;
    for option in ["-q", "-r"] {
        plant(&guest);
        let (running, stopped) = begin(&guest, &[option, "large", &guest.of_vm("copy")]);
        let mut file = OpenOptions::new().append(true).open(guest.path("large")).unwrap();
        file.write_all(b"more").unwrap();
        drop(stopped);
        let ran = running.end();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert_eq!(fs::metadata(guest.path("copy")).unwrap().len(), LARGE, "{option}");
        fs::remove_file(guest.path("copy")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_leaves_no_part_of_a_file() {
    let guest = CopyGuest::start().await;
    plant(&guest);
    guest.mkdir("to");
    let operations = || {
        let ran = crate::shared::command::ctl(&guest.daemon.host(), &["-o", "json", "ps", "web-1"])
            .output()
            .unwrap();
        String::from_utf8(ran.stdout).unwrap().matches("\"running\"").count()
    };
    for option in ["-q", "-r"] {
        let (running, stopped) = begin(&guest, &[option, "large", &guest.of_vm("to")]);
        running.signal(Signal::KILL);
        drop((running, stopped));
        until("the operation has ended", || operations() == 0);
        assert!(guest.names("to").is_empty(), "{option}: {:?}", guest.names("to"));
        let running = Running::start(&mut guest.cp(&[option, &guest.of_vm("large"), "to"]));
        until("the copy has begun", || bytes_written(&running.child) > 512 * 1024);
        running.signal(Signal::KILL);
        drop(running);
        assert!(guest.names("to").is_empty(), "{option}: {:?}", guest.names("to"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_leaves_no_part_of_a_file() {
    use testkit::agent_process::AgentProcess;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    let dir = tempfile::Builder::new().permissions(open).tempdir().unwrap();
    let agent = AgentProcess::start(dir.path(), "web-1", &[]);
    for option in ["-q", "-r"] {
        let mut daemon = crate::shared::process::start(dir.path());
        let (from, to) = (dir.path().join("large"), dir.path().join("to"));
        fs::create_dir_all(&to).unwrap();
        fs::write(&from, vec![b'x'; usize::try_from(LARGE).unwrap()]).unwrap();
        let (from, to) = (from.to_str().unwrap(), format!("web-1:{}", to.display()));
        let args = ["cp", option, from, &to];
        let running = Running::start(&mut crate::shared::command::ctl(&daemon.host(), &args));
        until("the source is read", || bytes_read(&running.child) > 512 * 1024);
        let stopped = Stopped::process(agent.pid());
        daemon.end(Signal::KILL);
        drop(stopped);
        let ran = running.end();
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("minionsd"), "{}", ran.stderr);
        assert!(fs::read_dir(dir.path().join("to")).unwrap().next().is_none(), "{option}");
    }
}
