//! An audit file without space, and a log that is not read.

use super::program::Program;
use crate::callers::{OTHER, ROOT, WRONG_TOKEN, Way, bearer, curl};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Covers every operate route of the document: no call reaches a guest without an audit entry.
#[tokio::test]
async fn while_the_audit_file_is_full_no_operate_call_reaches_a_guest() {
    let program = Program::auditing_to(Some(Path::new("/dev/full")), "").await;
    let document: Value = serde_json::from_str(&minionsd::openapi_json()).unwrap();
    let mut refused = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let (method, path) = (method.to_uppercase(), path.replace("{vm}", "web-1"));
            let path = path.replace("{id}", "0");
            if operation["x-scope"] != "operate" || path.contains('{') || method == "GET" {
                continue;
            }
            let exec = json!({ "command": "touch", "args": [program.path("marker")] });
            let body = match path.as_str() {
                "/exec" => json!({ "vms": ["*"], "exec": exec }),
                "/vms/web-1/exec" => exec,
                "/vms/web-1/files/mkdir" => json!({ "path": program.path("marker") }),
                "/vms/web-1/files/move" => json!({ "path": "/", "to": program.path("marker") }),
                _ => json!({}),
            };
            let json = ["--json", &body.to_string()];
            let file = ["--data-binary", "x", "-HContent-Type: application/octet-stream"];
            let (path, more) = match path.as_str() {
                "/vms/web-1/files" => {
                    (format!("{path}?path={}", program.path("marker").display()), &file[..])
                }
                _ => (path, &json[..]),
            };
            let status = program.ask("full", ROOT, &method, &path, more).await;
            assert_eq!(status, 503, "{method} {path}");
            refused += 1;
        }
    }
    assert!(refused > 5, "{refused}");
    assert!(!program.path("marker").exists());
    // Reads still work, and /readyz and the metrics report the fault; the log reports it once.
    assert_eq!(program.ask("read", OTHER, "GET", "/vms/web-1/health", &[]).await, 200);
    let socket = program.path("minionsd.sock");
    let ready = curl(ROOT, Way::Unix(&socket), "/readyz", &[]).await.unwrap();
    assert!(ready.json()["detail"].as_str().unwrap().contains("audit log"), "{ready:?}");
    let metrics = curl(ROOT, Way::Unix(&socket), "/metrics", &[]).await.unwrap().body;
    assert!(metrics.contains("minions_audit_writable 0\n"), "{metrics}");
    let counted = format!("minions_problems_total{{code=\"audit_unavailable\"}} {refused}\n");
    assert!(metrics.contains(&counted), "{metrics}");
    let logged = |program: &Program| {
        (program.log().matches("the audit log cannot be written").count() == 1).then_some(())
    };
    program.until("the log reports it once", logged).await;
}

/// File system of 4 MiB in memory; unmounted when dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(dir.path());
        assert!(mount.status().unwrap().success(), "mount failed; this test must run as root");
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn once_there_is_space_again_calls_are_served_and_the_file_is_intact() {
    let disk = SmallDisk::mount();
    let program = Program::auditing_to(Some(&disk.0.path().join("audit")), "").await;
    let exec = ["--json", r#"{"command":"true"}"#];
    let run = async |id: &str| program.ask(id, ROOT, "POST", "/vms/web-1/exec", &exec).await;
    assert_eq!(run("before").await, 200);
    let filler = disk.0.path().join("filler");
    let mut rest = fs::File::create(&filler).unwrap();
    while rest.write_all(&[0; 512]).is_ok() {}
    let mut status = 200;
    let mut tries = 0;
    while status == 200 {
        tries += 1;
        assert!(tries < 100, "the file system does not become full");
        status = run("fills").await;
    }
    assert_eq!((status, run("full").await), (503, 503));
    assert!(program.lines_of("full").is_empty());
    drop(rest);
    fs::remove_file(&filler).unwrap();
    assert_eq!(run("after").await, 200);
    assert_eq!(program.lines_of("after").len(), 2);
    let logged = |program: &Program| {
        program.log().contains("the audit log can be written again").then_some(())
    };
    program.until("the log reports the recovery", logged).await;
}

/// Standard error is a full pipe: the requests of an unprivileged user fill it.
#[tokio::test]
async fn an_unread_log_blocks_no_call() {
    let program = Program::unread().await;
    let wrong = bearer(WRONG_TOKEN);
    // At level debug each request is a log line with its path: far more in total than a pipe holds.
    let long = format!("/{}", "x".repeat(4000));
    for _ in 0..60 {
        let more = ["--header", &wrong, "--max-time", "10"];
        assert_eq!(program.ask("long", OTHER, "GET", &long, &more).await, 404);
    }
    let exec = ["--json", r#"{"command":"true"}"#];
    assert_eq!(program.ask("mine", ROOT, "POST", "/vms/web-1/exec", &exec).await, 200);
    assert_eq!(program.lines_of("mine").len(), 2);
}
