//! `report_status` on the machine that runs the test.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{Exec, ReportStatus, encode_request};
use support::{RunningAgent, processes_with, until};
use tokio::io::AsyncWriteExt;

#[tokio::test]
async fn base_fields_and_additional_fields_are_present() {
    let status = RunningAgent::start().await.call(&ReportStatus {}).await.unwrap();
    assert!(status.uptime_secs > 0 && status.memory_total_mb > 0, "{status:?}");
    assert!((1..=status.memory_total_mb).contains(&status.memory_used_mb), "{status:?}");
    assert!(status.disk_used_gb <= status.disk_total_gb, "{status:?}");
    assert!(status.cpus.unwrap() >= 1);
    assert!(status.load.is_some() && status.os.is_some());
    assert!(status.swap_used_mb.unwrap() <= status.swap_total_mb.unwrap());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(status.kernel.as_deref(), Some(kernel.trim()));
}

#[tokio::test]
async fn the_root_filesystem_and_the_loopback_are_listed() {
    let status = RunningAgent::start().await.call(&ReportStatus {}).await.unwrap();
    let filesystems = status.filesystems.unwrap();
    let root = filesystems.iter().find(|filesystem| filesystem.mount_point == "/").unwrap();
    assert!(root.total_bytes > 0 && root.used_bytes <= root.total_bytes, "{root:?}");
    let interfaces = status.interfaces.unwrap();
    let loopback = interfaces.iter().find(|interface| interface.name == "lo").unwrap();
    assert!(loopback.addresses.iter().any(|address| address == "127.0.0.1/8"), "{loopback:?}");
    assert_eq!(loopback.mac, None);
}

#[tokio::test]
async fn cpu_usage_is_present_after_the_first_sample() {
    let agent = RunningAgent::start().await;
    assert_eq!(agent.call(&ReportStatus {}).await.unwrap().cpu_percent, None);
    let percent = until("the first sample is complete", async || {
        agent.call(&ReportStatus {}).await.unwrap().cpu_percent
    })
    .await;
    assert!((0.0..=100.0).contains(&percent), "{percent}");
}

#[tokio::test]
async fn status_is_answered_while_a_program_runs() {
    let agent = RunningAgent::start().await;
    let seconds = format!("300.{}", std::process::id());
    let sleep = Exec { command: "sleep".to_owned(), args: vec![seconds.clone()], timeout_ms: None };
    let mut stream = agent.stream().await;
    stream.write_all(&encode_request(&sleep).unwrap()).await.unwrap();
    let running = || processes_with(&seconds).len() == 1;
    until("the program runs", async || running().then_some(())).await;
    agent.call(&ReportStatus {}).await.unwrap();
    assert!(running());
}
