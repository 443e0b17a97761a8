//! The directory of sockets: its allowed owners, and reports about files that are passed over.

use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use testkit::minionsd::Minionsd;
use testkit::wait::until_async;

const NOBODY: u32 = 65534;

/// Group that is in no user database.
const GROUP: u32 = 4_000_000;

/// Running daemon whose socket directory is below another directory below `/tmp`.
struct Daemon(Minionsd);

impl Daemon {
    /// Starts a daemon; `prepare` gets the directory above the socket directory, and the socket directory.
    fn start(config: &str, prepare: impl FnOnce(&Path, &Path)) -> Self {
        let builder = Minionsd::builder().config(config);
        let above = builder.path().join("above");
        let vms = above.join("vms");
        fs::create_dir_all(&vms).unwrap();
        for dir in [&above, &vms] {
            set_mode(dir, 0o755);
        }
        prepare(&above, &vms);
        Self(builder.vms(&vms).start())
    }

    /// Returns the value of one line of `/metrics`, or 0 without such a line.
    async fn metric(&self, name: &str) -> usize {
        let metrics = self.0.http().get("http://minionsd/metrics").send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a metric meets the condition, and triggers a scan in each round.
    async fn until_metric(&self, name: &str, condition: impl Fn(usize) -> bool) {
        until_async(&format!("{name} has the expected value"), async || {
            let value = self.metric(name).await;
            fs::write(self.0.vms().join("hint"), "").unwrap();
            fs::remove_file(self.0.vms().join("hint")).unwrap();
            if condition(value) { Ok(()) } else { Err(value) }
        })
        .await;
    }

    async fn until_ready(&self, vm: &str) {
        self.0.until(&format!("/vms/{vm}"), |vm| vm.json["state"] == "ready").await;
    }

    /// Returns the number of lines in the log that contain `words`.
    fn logged(&self, words: &str) -> usize {
        self.0.log().lines().filter(|line| line.contains(words)).count()
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
        let _vm = vm(daemon.0.vms(), "web-1");
        let figure = format!("minions_socket_scans_failed_total{{reason=\"{reason}\"}}");
        daemon.until_metric(&figure, |scans| scans >= 3).await;
        assert_eq!(daemon.0.get("/vms").await.unwrap().json["vms"], json!([]), "{reason}");
        assert_eq!(daemon.logged("no VMs can be found"), 1, "{}", daemon.0.log());
        assert_eq!(daemon.logged(advice), 1, "{}", daemon.0.log());
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
    let _vm = vm(daemon.0.vms(), "web-1");
    daemon.until_ready("web-1").await;
    // A sticky parent directory is safe too, and so is a directory of the operators' group.
    let daemon = Daemon::start("operator_group = 'daemon'", |above, vms| {
        set_mode(above, 0o1777);
        chown(vms, None, Some(1)).unwrap();
        set_mode(vms, 0o775);
    });
    let _vm = vm(daemon.0.vms(), "web-1");
    daemon.until_ready("web-1").await;
    assert_eq!(daemon.logged("WARN"), 0, "{}", daemon.0.log());
}

#[tokio::test]
async fn files_that_are_passed_over_are_counted_and_logged_once() {
    let daemon = Daemon::start("", |_, _| {});
    let _vm = vm(daemon.0.vms(), "web-1");
    let _others = ["web 1", "web:1", "\u{1b}[2J"].map(|name| vm(daemon.0.vms(), name));
    fs::write(daemon.0.vms().join("plain.vsock"), "").unwrap();
    daemon.until_ready("web-1").await;
    let (name, no_socket) = (
        "minions_socket_files_passed_over{reason=\"name\"}",
        "minions_socket_files_passed_over{reason=\"not_a_socket\"}",
    );
    daemon.until_metric(name, |files| files == 3).await;
    daemon.until_metric(no_socket, |files| files == 1).await;
    // A further scan logs only the new file.
    fs::write(daemon.0.vms().join("late.vsock"), "").unwrap();
    daemon.until_metric(no_socket, |files| files == 2).await;
    fs::remove_file(daemon.0.vms().join("late.vsock")).unwrap();
    daemon.until_metric(no_socket, |files| files == 1).await;
    for file in ["web 1.vsock", "web:1.vsock", "[2J.vsock", "plain.vsock", "late.vsock"] {
        assert_eq!(daemon.logged(file), 1, "{file}: {}", daemon.0.log());
    }
    assert!(!daemon.0.log().contains('\u{1b}'));
}
