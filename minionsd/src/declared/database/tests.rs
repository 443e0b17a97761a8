//! Crash points, full disks and damaged files.

use super::*;
use minions_api::declaration::ApplyRequest;
use minions_declare::{DeclaredState, LeaseNeed};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

fn request(json: &str) -> ApplyRequest {
    serde_json::from_str(json).unwrap()
}

const APPLY: &str = r#"{
    "pools": [{"name": "lan", "subnet": "10.0.0.0/24", "gateway": "10.0.0.1"}],
    "declarations": [{"name": "a", "network": {"pool": "lan"}}, {"name": "b*", "hostname": "{vm}"}]
}"#;

fn planned(state: &DeclaredState, json: &str) -> Plan {
    state.plan_apply(&request(json), &[]).unwrap().0
}

fn leased(state: &DeclaredState, vm: &str) -> Plan {
    let need = LeaseNeed::Pool { interface: String::new(), pool: "lan".into() };
    state.plan_leases(&vm.parse().unwrap(), &[need]).unwrap()
}

fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("minionsd.db");
    (dir, path)
}

fn state_of(path: &Path) -> DeclaredState {
    let mut state = DeclaredState::default();
    state.commit(&StateDatabase::open(path).unwrap().1);
    state
}

/// Everything in a state that can be compared.
fn shown(state: &DeclaredState) -> String {
    let declarations: Vec<_> = state.declarations().iter().collect();
    format!("{} {:?} {declarations:?} {:?}", state.revision(), state.pools(), state.leases())
}

/// Writes two plans, and returns their state.
fn fill(path: &Path) -> DeclaredState {
    let (mut database, _) = StateDatabase::open(path).unwrap();
    let mut state = DeclaredState::default();
    for next in
        [|state: &DeclaredState| planned(state, APPLY), |state: &DeclaredState| leased(state, "a")]
    {
        let plan = next(&state);
        database.write(&plan).unwrap();
        state.commit(&plan);
    }
    state
}

#[test]
fn the_state_is_read_back_as_it_was_written() {
    let (_dir, path) = file();
    let state = fill(&path);
    assert_eq!(shown(&state_of(&path)), shown(&state));
    assert_eq!(state.leases().len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// Copies the files as a killed daemon leaves them.
fn left_by_a_kill(path: &Path) -> (TempDir, PathBuf) {
    let (dir, copy) = file();
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if name(path).exists() {
            fs::copy(name(path), name(&copy)).unwrap();
        }
    }
    (dir, copy)
}

#[test]
fn a_kill_between_any_two_steps_leaves_the_state_before_or_after() {
    let (_dir, path) = file();
    let before = fill(&path);
    let next = r#"{"prune": true, "pools": [{"name": "lan", "subnet": "10.0.0.0/24", "mtu": 1400},
        {"name": "wan", "subnet": "10.1.0.0/24"}],
        "declarations": [{"name": "a", "network": {"pool": "wan"}}, {"name": "c", "labels": {"x": "y"}}]}"#;
    let plan = planned(&before, next);
    assert!(plan.changes.len() >= 5, "{plan:?}");
    let mut after = before.clone();
    after.commit(&plan);
    let (mut database, _) = StateDatabase::open(&path).unwrap();
    let connection = database.connection.as_mut().unwrap();
    let mut kills = vec![left_by_a_kill(&path)];
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
    kills.push(left_by_a_kill(&path));
    for change in &plan.changes {
        rows::write(&transaction, change).unwrap();
        kills.push(left_by_a_kill(&path));
    }
    rows::write_revision(&transaction, plan.revision).unwrap();
    kills.push(left_by_a_kill(&path));
    for (step, (_dir, copy)) in kills.iter().enumerate() {
        assert_eq!(shown(&state_of(copy)), shown(&before), "step {step}");
    }
    transaction.commit().unwrap();
    let (_dir, copy) = left_by_a_kill(&path);
    assert_eq!(shown(&state_of(&copy)), shown(&after));
}

#[test]
fn a_kill_during_the_creation_does_not_hinder_the_next_start() {
    let (_dir, path) = file();
    fs::write(format!("{}.new", path.display()), "half").unwrap();
    fs::write(format!("{}-wal", path.display()), "of another database").unwrap();
    let state = fill(&path);
    assert_eq!(shown(&state_of(&path)), shown(&state));
}

#[test]
fn a_damaged_newer_or_foreign_file_is_refused_with_what_to_do() {
    let (_dir, path) = file();
    fill(&path);
    let whole = fs::read(&path).unwrap();
    let set = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let refused = |words: &[&str]| {
        let error = StateDatabase::open(&path).unwrap_err().to_string();
        for word in words.iter().chain(&[path.to_str().unwrap()]) {
            assert!(error.contains(word), "no {word:?} in {error:?}");
        }
    };
    for length in [0, 1, 100, 4096, whole.len() - 4096, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        refused(&["damaged", "backup", "move it away"]);
    }
    fs::write(&path, "this is a text, and not a database at all: ".repeat(200)).unwrap();
    refused(&["damaged", "not a database"]);
    fs::write(&path, &whole).unwrap();
    set("PRAGMA user_version = 2");
    refused(&["version 2", "up to 1", "upgrade"]);
    set("PRAGMA user_version = 1; PRAGMA application_id = 7");
    refused(&["not a database of minionsd"]);
    set(&format!("PRAGMA application_id = {APPLICATION}; UPDATE leases SET kind = 'odd'"));
    refused(&["leases", "10.0.0.2", "odd"]);
    set("UPDATE leases SET kind = 'pool'; UPDATE pools SET body = '{}'");
    refused(&["pools", "lan", "subnet"]);
}

#[test]
fn a_database_in_use_is_refused() {
    let (_dir, path) = file();
    let _first = StateDatabase::open(&path).unwrap();
    let error = StateDatabase::open(&path).unwrap_err();
    assert!(matches!(&error, StoreOpenError::InUse(one) if *one == path), "{error}");
}

#[test]
fn a_missing_directory_is_named() {
    let error = StateDatabase::open(Path::new("/nowhere/minionsd.db")).unwrap_err().to_string();
    assert!(
        error.contains("/nowhere/minionsd.db") && error.contains("create the directory"),
        "{error}"
    );
}

#[test]
fn sqlite_refuses_to_remove_a_pool_in_use() {
    let (_dir, path) = file();
    fill(&path);
    let (mut database, all) = StateDatabase::open(&path).unwrap();
    let changes = vec![minions_declare::Change::RemovePool("lan".into())];
    let error = database.write(&Plan { changes, revision: 9 }).unwrap_err().to_string();
    assert!(error.contains("FOREIGN KEY"), "{error}");
    drop(database);
    assert_eq!(StateDatabase::open(&path).unwrap().1, all);
}

/// A small file system, mounted until it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        run(&["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs"], dir.path());
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        run(&["umount", "--lazy"], self.0.path());
    }
}

fn run(command: &[&str], path: &Path) {
    let status = Command::new(command[0]).args(&command[1..]).arg(path).status().unwrap();
    assert!(status.success(), "{command:?} {}: {status}", path.display());
}

#[test]
fn a_full_disk_is_an_error_and_what_was_acknowledged_stays() {
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("minionsd.db");
    let mut state = fill(&path);
    let (mut database, _) = StateDatabase::open(&path).unwrap();
    let filler = disk.0.path().join("filler");
    let _ = fs::write(&filler, vec![0; 1 << 20]);
    let mut failed = None;
    for number in 0..200 {
        let plan = leased(&state, &format!("vm-{number}"));
        match database.write(&plan) {
            Ok(()) => state.commit(&plan),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let error = failed.expect("the disk is full").to_string();
    assert!(error.contains("full"), "{error}");
    let (_dir, copy) = left_by_a_kill(&path);
    assert_eq!(shown(&state_of(&copy)), shown(&state));
    fs::remove_file(&filler).unwrap();
    let plan = leased(&state, "later");
    database.write(&plan).unwrap();
    state.commit(&plan);
    drop(database);
    assert_eq!(shown(&state_of(&path)), shown(&state));
}

#[test]
fn a_read_only_disk_is_refused_at_the_start() {
    let disk = SmallDisk::mount();
    let path = disk.0.path().join("minionsd.db");
    fill(&path);
    run(&["mount", "-o", "remount,ro"], disk.0.path());
    let error = StateDatabase::open(&path).unwrap_err().to_string();
    assert!(error.contains("Read-only file system") && error.contains("minionsd.db"), "{error}");
}

#[test]
fn a_database_on_a_full_disk_is_read_and_written_again_when_there_is_room() {
    for is_killed in [false, true] {
        let (_dir, origin) = file();
        let mut state = fill(&origin);
        let mut left = vec![""];
        // The log of a daemon that was killed has changes that are not in the file.
        let (mut killed, _) = StateDatabase::open(&origin).unwrap();
        if is_killed {
            let plan = leased(&state, "in-the-log");
            killed.write(&plan).unwrap();
            state.commit(&plan);
            left.push("-wal");
        }
        let disk = SmallDisk::mount();
        let path = disk.0.path().join("100% full?.db");
        for suffix in left {
            let name = |path: &Path| format!("{}{suffix}", path.display());
            fs::copy(name(&origin), name(&path)).unwrap();
        }
        let filler = disk.0.path().join("filler");
        let _ = fs::write(&filler, vec![0; 1 << 20]);
        let (mut database, all) = StateDatabase::open(&path).unwrap();
        let mut read = DeclaredState::default();
        read.commit(&all);
        assert_eq!(shown(&read), shown(&state), "killed: {is_killed}");
        assert!(!database.is_writable());
        let plan = leased(&state, "later");
        let error = database.write(&plan).unwrap_err().to_string();
        assert!(error.contains("make room on its disk"), "{error}");
        fs::remove_file(&filler).unwrap();
        database.write(&plan).unwrap();
        state.commit(&plan);
        drop(database);
        assert_eq!(shown(&state_of(&path)), shown(&state), "killed: {is_killed}");
    }
}
