//! Copies to many VMs.

use super::guest::CopyGuest;
use crate::shared::command::{Ran, ctl};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_to_all_vms_that_the_pattern_selects() {
    let guest = CopyGuest::with(&["web-1", "web-2", "db"]).await;
    guest.write("site/index", "hello");
    guest.mkdir("in");
    let to = format!(":{}", guest.text("in"));
    let ran = guest.run(&["-r", "--on", "web-*", "site", &to]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "2 VMs: 2 ok\n"));
    guest.assert_content("in/site/index", "hello");
    let ran = guest.run(&["--all", "--concurrency", "1", "site/index", &to]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "3 VMs: 3 ok\n"));

    let missing = format!(":{}", guest.text("none/x"));
    let ran = guest.run(&["--all", "site/index", &missing]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.ends_with("3 VMs: 3 failed\n"), "{}", ran.stderr);
    for vm in ["db: ", "web-1: ", "web-2: "] {
        assert!(ran.stderr.contains(vm), "{}", ran.stderr);
    }
    let ran = guest.run(&["--all", "--fail-fast", "--concurrency", "1", "site/index", &missing]);
    assert!(ran.stderr.ends_with("3 VMs: 1 failed, 2 skipped\n"), "{}", ran.stderr);

    let all = ["-o", "json", "cp", "--all", &guest.text("site/index"), &to];
    let ran = Ran::of(&mut ctl(&guest.daemon.host(), &all));
    let lines = std::str::from_utf8(&ran.stdout).unwrap().lines();
    let mut vms: Vec<String> = lines
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["vm"].as_str().unwrap().to_owned())
        .collect();
    vms.sort();
    assert_eq!(vms, ["db", "web-1", "web-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_to_many_vms_needs_local_sources_and_a_path() {
    let guest = CopyGuest::start().await;
    guest.write("a", "A");
    guest.run(&["--all", "a", "web-1:/tmp"]).assert(1, "", "must be :/PATH");
    guest.run(&["--all", "web-1:/a", ":/tmp"]).assert(1, "", "paths on this host");
    guest.run(&["--on", "none*", "a", ":/tmp"]).assert(1, "", "no VM's name matches");
    guest.run(&["--on", "a/b", "a", ":/tmp"]).assert(1, "", "--on");
    guest.run(&["--on", "x", "--all", "a", ":/tmp"]).assert(2, "", "cannot be used with");
}
