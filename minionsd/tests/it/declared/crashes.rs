//! The daemon is killed while it changes the declared state, or cannot write it.

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use testkit::daemon::read;
use testkit::minionsd::Minionsd;
use testkit::wait::until;

#[tokio::test]
async fn after_a_kill_everything_that_was_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        || Minionsd::builder().dir(dir.path()).arg("--state").arg(dir.path().join("db")).start();
    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..5 {
        let mut daemon = start();
        if round == 0 {
            let pool = json!({ "subnet": "10.0.0.0/16" });
            let put = daemon.http().put("http://d/pools/lan").json(&pool).send().await.unwrap();
            assert_eq!(put.status(), 200);
        }
        let leases = daemon.until("/pools/lan/leases", |all| all.status == 200).await.json;
        let leases = leases["leases"].as_array().unwrap();
        let found: BTreeMap<_, _> = leases
            .iter()
            .map(|one| {
                (
                    one["vm"].as_str().unwrap().to_owned(),
                    one["address"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        assert_eq!(found.len(), leases.len());
        for (vm, address) in &acknowledged {
            assert_eq!(found.get(vm), Some(address), "round {round}: the lease of {vm} is lost");
        }
        let http = daemon.http().clone();
        let writer = tokio::spawn(async move {
            let mut done = Vec::new();
            for number in 0.. {
                let vm = format!("vm-{round}-{number}");
                let body = json!({ "vm": vm });
                let sent = http.post("http://d/pools/lan/leases").json(&body).send().await;
                let Ok(reply) = sent else { break };
                let reply = read(reply).await;
                let Some(address) = reply.json["address"].as_str() else { break };
                done.push((vm, address.to_owned()));
            }
            done
        });
        daemon
            .until("/pools/lan/leases", |all| {
                all.json["leases"]
                    .as_array()
                    .is_some_and(|all| all.len() > leases.len() + 10 + 7 * round)
            })
            .await;
        daemon.end(rustix::process::Signal::KILL);
        acknowledged.extend(writer.await.unwrap());
    }
    let addresses: std::collections::BTreeSet<_> = acknowledged.values().collect();
    assert_eq!(addresses.len(), acknowledged.len(), "an address was given twice");
    assert!(acknowledged.len() > 50);
}

#[tokio::test]
async fn a_damaged_database_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let mut daemon = Minionsd::builder().dir(dir.path()).arg("--state").arg(&path).start();
    assert!(daemon.terminate().success());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!dir.path().join("db-wal").exists(), "a daemon that ends closes its database");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let mut daemon = Minionsd::builder().dir(dir.path()).arg("--state").arg(&path).spawn();
    let status = until("minionsd has ended", || daemon.ended());
    assert_eq!(status.code(), Some(1));
    for words in ["damaged", "backup", "docs/OPERATIONS.md", path.to_str().unwrap()] {
        assert!(daemon.log().contains(words), "no {words:?} in {}", daemon.log());
    }
    fs::remove_file(&path).unwrap();
    let daemon = Minionsd::builder().dir(dir.path()).arg("--state").arg(&path).start();
    assert_eq!(daemon.get("/declarations").await.unwrap().json["persistent"], true);
    let mut second = Minionsd::builder().arg("--state").arg(&path).spawn();
    assert_eq!(until("the second daemon has ended", || second.ended()).code(), Some(1));
    assert!(second.log().contains("in use by another minionsd"), "{}", second.log());
}

/// A file system of 512 KiB, mounted until it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        crate::callers::must_be_root();
        let dir = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.unwrap().success());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_daemon_on_a_full_disk_starts_with_what_is_stored_and_refuses_changes_until_there_is_room()
 {
    let (dir, disk) = (tempfile::tempdir().unwrap(), SmallDisk::mount());
    let state = disk.0.path().join("db");
    let start = || Minionsd::builder().dir(dir.path()).arg("--state").arg(&state).start();
    let put = async |daemon: &Minionsd, name: &str, subnet: &str| {
        let path = format!("http://d/pools/{name}");
        let pool = json!({ "subnet": subnet });
        read(daemon.http().put(path).json(&pool).send().await.unwrap()).await
    };
    let mut daemon = start();
    assert_eq!(put(&daemon, "lan", "10.0.0.0/24").await.status, 200);
    daemon.end(rustix::process::Signal::KILL);
    let filler = disk.0.path().join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let daemon = start();
    let pools = daemon.until("/pools", |pools| pools.status == 200).await.json;
    assert_eq!(pools["pools"][0]["pool"]["name"], "lan", "{pools}");
    let refused = put(&daemon, "wan", "10.1.0.0/24").await;
    refused.assert_problem(503, "state_unavailable");
    assert_eq!(refused.json["may_have_executed"], false);
    let ready = daemon.until("/readyz", |ready| ready.status == 200).await.json;
    assert!(ready["detail"].as_str().unwrap().contains("cannot be written"), "{ready}");
    fs::remove_file(&filler).unwrap();
    assert_eq!(put(&daemon, "wan", "10.1.0.0/24").await.status, 200);
    let ready = daemon.until("/readyz", |ready| ready.status == 200).await.json;
    assert_eq!(ready["detail"], serde_json::Value::Null, "{ready}");
}
