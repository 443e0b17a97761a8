//! The directory of sockets: its allowed owners, and reports about files that are passed over.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use testkit::daemon::DEADLINE;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

const NOBODY: u32 = 65534;

/// Group that is in no user database.
const GROUP: u32 = 4_000_000;

/// Running daemon with its log.
struct Daemon {
    own: TempDir,
    vms: PathBuf,
    _child: Child,
}

impl Daemon {
    /// Starts a daemon whose socket directory is below another directory below `/tmp`; `prepare` gets both.
    fn start(config: &str, prepare: impl FnOnce(&Path, &Path)) -> Self {
        let own = tempfile::tempdir().unwrap();
        let above = own.path().join("above");
        let vms = above.join("vms");
        fs::create_dir_all(&vms).unwrap();
        for dir in [own.path(), &above, &vms] {
            fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        }
        prepare(&above, &vms);
        fs::write(own.path().join("minionsd.toml"), config).unwrap();
        let log = fs::File::create(own.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_minionsd"))
            .args(["--listen", "none", "--unix-socket"])
            .arg(own.path().join("minionsd.sock"))
            .arg("--config")
            .arg(own.path().join("minionsd.toml"))
            .arg("--socket-dir")
            .arg(&vms)
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { own, vms, _child: child }
    }

    async fn get(&self, path: &str) -> String {
        let http = testkit::daemon::http()
            .unix_socket(self.own.path().join("minionsd.sock"))
            .timeout(DEADLINE)
            .build()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok(response) = http.get(format!("http://localhost{path}")).send().await {
                return response.text().await.unwrap();
            }
            assert!(Instant::now() < deadline, "minionsd does not answer");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns the value of one line of `/metrics`, or 0 without such a line.
    async fn metric(&self, name: &str) -> usize {
        let metrics = self.get("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric meets the condition, and triggers a scan in each round.
    async fn until_metric(&self, name: &str, condition: impl Fn(usize) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self.metric(name).await) {
            assert!(
                Instant::now() < deadline,
                "timed out: {name} is still {}",
                self.metric(name).await
            );
            fs::write(self.vms.join("hint"), "").unwrap();
            fs::remove_file(self.vms.join("hint")).unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_ready(&self, vm: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.get(&format!("/vms/{vm}")).await.contains("\"state\":\"ready\"") {
            assert!(Instant::now() < deadline, "{}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.own.path().join("log")).unwrap()
    }

    /// Returns the number of lines in the log that contain `words`.
    fn logged(&self, words: &str) -> usize {
        self.log().lines().filter(|line| line.contains(words)).count()
    }
}

fn vm(dir: &Path, name: &str) -> FakeVmm {
    FakeVmm::start(dir, name, Behaviour::Agent(agent().unwrap())).unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn must_be_root() {
    let is_root = rustix::process::geteuid().is_root();
    assert!(
        is_root,
        "this test changes owners of directories, which only root can do: run it with sudo"
    );
}

#[tokio::test]
async fn an_unsafe_directory_has_no_vms_and_is_reported_once() {
    must_be_root();
    type Prepare = fn(&Path, &Path);
    let cases: [(Prepare, &str, &str); 6] = [
        (|_, vms| chown(vms, Some(NOBODY), None).unwrap(), "owner", "chown root"),
        (|above, _| chown(above, Some(NOBODY), None).unwrap(), "owner", "socket_owners"),
        (|_, vms| set_mode(vms, 0o1777), "world_writable", "chmod o-w"),
        (|above, _| set_mode(above, 0o777), "world_writable", "chmod o-w"),
        (
            |_, vms| {
                chown(vms, None, Some(GROUP)).unwrap();
                set_mode(vms, 0o775);
            },
            "group_writable",
            "chmod g-w",
        ),
        (
            |above, _| {
                chown(above, None, Some(GROUP)).unwrap();
                set_mode(above, 0o775);
            },
            "group_writable",
            "\":4000000\"",
        ),
    ];
    for (prepare, reason, advice) in cases {
        let daemon = Daemon::start("", prepare);
        let _vm = vm(&daemon.vms, "web-1");
        let figure = format!("minions_socket_scans_failed_total{{reason=\"{reason}\"}}");
        daemon.until_metric(&figure, |scans| scans >= 3).await;
        assert!(!daemon.get("/vms").await.contains("web-1"), "{reason}");
        assert_eq!(daemon.logged("no VMs can be found"), 1, "{}", daemon.log());
        assert_eq!(daemon.logged(advice), 1, "{}", daemon.log());
    }
}

#[tokio::test]
async fn configured_owners_and_groups_are_trusted() {
    must_be_root();
    let daemon = Daemon::start("socket_owners = ['65534', ':4000000']", |above, vms| {
        chown(above, Some(NOBODY), Some(GROUP)).unwrap();
        chown(vms, Some(NOBODY), Some(GROUP)).unwrap();
        set_mode(above, 0o775);
        set_mode(vms, 0o775);
    });
    let _vm = vm(&daemon.vms, "web-1");
    daemon.until_ready("web-1").await;
    // A sticky parent directory is safe too, and so is a directory of the operators' group.
    let daemon = Daemon::start("operator_group = 'daemon'", |above, vms| {
        set_mode(above, 0o1777);
        chown(vms, None, Some(1)).unwrap();
        set_mode(vms, 0o775);
    });
    let _vm = vm(&daemon.vms, "web-1");
    daemon.until_ready("web-1").await;
    assert_eq!(daemon.logged("WARN"), 0, "{}", daemon.log());
}

#[tokio::test]
async fn files_that_are_passed_over_are_counted_and_logged_once() {
    let daemon = Daemon::start("", |_, _| {});
    let _vm = vm(&daemon.vms, "web-1");
    let _others = ["web 1", "web:1", "\u{1b}[2J"].map(|name| vm(&daemon.vms, name));
    fs::write(daemon.vms.join("plain.vsock"), "").unwrap();
    daemon.until_ready("web-1").await;
    let (name, no_socket) = (
        "minions_socket_files_passed_over{reason=\"name\"}",
        "minions_socket_files_passed_over{reason=\"not_a_socket\"}",
    );
    daemon.until_metric(name, |files| files == 3).await;
    daemon.until_metric(no_socket, |files| files == 1).await;
    // A further scan logs only the new file.
    fs::write(daemon.vms.join("late.vsock"), "").unwrap();
    daemon.until_metric(no_socket, |files| files == 2).await;
    fs::remove_file(daemon.vms.join("late.vsock")).unwrap();
    daemon.until_metric(no_socket, |files| files == 1).await;
    for file in ["web 1.vsock", "web:1.vsock", "[2J.vsock", "plain.vsock", "late.vsock"] {
        assert_eq!(daemon.logged(file), 1, "{file}: {}", daemon.log());
    }
    assert!(!daemon.log().contains('\u{1b}'));
}
