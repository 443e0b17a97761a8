//! Audit entries of calls that concern files.

use super::program::Program;
use crate::callers::ROOT;
use std::fs::{self, File};
use testkit::agent_process::AgentProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Size of a file that does not fit into the buffers between guest and client.
const LARGE: u64 = 1 << 30;

#[tokio::test]
async fn the_last_entry_says_whether_the_transfer_was_complete() {
    let program = Program::start().await;
    let _agent = AgentProcess::start(&program.path(""), "files", &[]);
    let is_ready = |program: &Program| program.log().contains("vm=files").then_some(());
    program.until("the VM is ready", is_ready).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "0123456789").unwrap();
    let path = |name: &str| format!("/vms/files/files?path={}/{name}", dir.path().display());

    let octets = "Content-Type: application/octet-stream";
    for (id, method, name, more, status, outcome) in [
        ("whole", "GET", "file", &[][..], 200, "ok"),
        ("part", "GET", "file", &["--header", "Range: bytes=2-4"], 206, "ok"),
        ("none", "GET", "none", &[], 404, "file_not_found"),
        ("write", "PUT", "new", &["--data-binary", "x", "--header", octets], 200, "ok"),
        ("remove", "DELETE", "new", &[], 200, "ok"),
    ] {
        assert_eq!(program.ask(id, ROOT, method, &path(name), more).await, status, "{id}");
        let entry = program.line(id).await;
        assert_eq!(entry["outcome"], outcome, "{id}: {entry}");
        let subject = format!("{:?}", dir.path().join(name).display().to_string());
        assert_eq!(entry["subject"], subject.as_str(), "{entry}");
    }

    let request = format!(r#"{{"path":"{0}","to":"{0}.old"}}"#, file.display());
    let more = ["--json", &request];
    assert_eq!(program.ask("move", ROOT, "POST", "/vms/files/files/move", &more).await, 200);
    let subject = format!("\"{0} -> {0}.old\"", file.display());
    assert_eq!(program.line("move").await["subject"], subject.as_str());

    File::create(dir.path().join("large")).unwrap().set_len(LARGE).unwrap();
    let mut client = UnixStream::connect(program.path("minionsd.sock")).await.unwrap();
    let head = format!("GET {} HTTP/1.1\r\nhost: x\r\nx-request-id: cut\r\n\r\n", path("large"));
    client.write_all(head.as_bytes()).await.unwrap();
    client.read_exact(&mut [0; 4096]).await.unwrap();
    drop(client);
    let entry = program.line("cut").await;
    assert_eq!((&entry["status"], &entry["outcome"]), (&200.into(), &"cut".into()), "{entry}");
}
