//! The audit file that the real program writes about operate calls.

mod full;
mod program;
mod races;

use crate::callers::{MEMBER, OTHER, ROOT, TOKEN, User, WRONG_TOKEN, bearer};
use program::{Program, become_other, request};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

/// Value of an argument; it must not occur in any file.
const SECRET: &str = "swordfish-4711";

fn touch(marker: &std::path::Path) -> String {
    json!({ "command": "touch", "args": [marker] }).to_string()
}

/// Request id, caller, action, path, more arguments; expected identity and status of the entry.
type Row<'a> = (&'a str, User, &'a str, &'a str, &'a [&'a str], &'a str, u16);

#[tokio::test]
async fn an_entry_is_begun_before_the_handler_and_complete_before_the_reply() {
    let program = Program::start().await;
    let exec = json!({ "command": "true", "args": [SECRET, "x"] }).to_string();
    let right = bearer(TOKEN);
    let (exec, network) = (["--json", &exec], ["--json", r#"{"dns":["swordfish-4711"]}"#]);
    let right = [exec[0], exec[1], "--header", &right];
    let (run, here) = ("POST /vms/{vm}/exec", "/vms/web-1/exec");
    let put = "PUT /vms/{vm}/network";
    let cases: [Row<'_>; 6] = [
        ("by-root", ROOT, run, here, &exec, "user", 200),
        ("by-member", MEMBER, run, here, &exec, "user", 200),
        ("right-token", OTHER, run, here, &right, "token", 200),
        ("no-vm", ROOT, run, "/vms/gone/exec", &exec, "user", 404),
        ("no-json", ROOT, run, here, &["--json", "{"], "user", 400),
        ("network", ROOT, put, "/vms/web-1/network", &network, "user", 422),
    ];
    for (id, user, action, path, more, identity, status) in cases {
        let method = action.split(' ').next().unwrap();
        assert_eq!(program.ask(id, user, method, path, more).await, status, "{id}");
        // No wait: the entry is written before the reply is sent.
        let lines = program.lines_of(id);
        let fields: Vec<_> = lines.iter().map(|line| &line["fields"]).collect();
        let stages: Vec<_> =
            fields.iter().map(|fields| fields["stage"].as_str().unwrap()).collect();
        // An invalid request reaches no guest, so its only entry is the last one.
        let begins = !matches!(status, 400 | 404);
        assert_eq!(stages, if begins { vec!["begin", "end"] } else { vec!["end"] }, "{id}");
        for line in &fields {
            let found = [&line["identity"], &line["uid"], &line["action"], &line["allowed"]];
            let expected = [json!(identity), json!(user.uid), json!(action), json!(true)];
            assert_eq!(found, [&expected[0], &expected[1], &expected[2], &expected[3]], "{id}");
        }
        let last = fields.last().unwrap();
        assert_eq!(last["status"], status, "{id}");
        assert_eq!(last["vm"], path.split('/').nth(2).unwrap(), "{id}");
        assert!(last["duration_ms"].is_u64(), "{id}");
        let digest = "da4c909fcd2cd530edc7cb923cac3a76c7b608f6da2dd079585cc7bf8eb0ebe3";
        if status == 200 {
            for line in fields {
                let program = (&line["command"], &line["arguments_sha256"]);
                assert_eq!(program, (&json!("\"true\""), &json!(digest)), "{id}");
            }
        }
    }
}

#[tokio::test]
async fn the_entries_of_a_file_session_name_the_user_of_the_guest() {
    let program = Program::start().await;
    let path = "/vms/web-1/files/session";
    for (id, query, user) in [("eve", "?user=eve%0A", "eve\\n"), ("default", "", "root")] {
        // The session itself needs a WebSocket.
        assert_eq!(program.ask(id, ROOT, "GET", &format!("{path}{query}"), &[]).await, 400);
        let lines = program.lines_of(id);
        assert_eq!(lines.len(), 2, "{lines:?}");
        for line in lines {
            let fields = &line["fields"];
            assert_eq!(fields["subject"], format!("\"file session of user {user}\""), "{line}");
            assert_eq!(fields["action"], "GET /vms/{vm}/files/session", "{line}");
        }
    }
}

#[tokio::test]
async fn refused_calls_are_one_entry_a_second_that_counts_all_of_them() {
    const CALLS: u64 = 80;
    let program = Program::start().await;
    let address = program.address().to_owned();
    let flood = std::thread::spawn(move || {
        become_other();
        let mut stream = TcpStream::connect(address).unwrap();
        let mut answers = Vec::new();
        for _ in 0..CALLS {
            stream.write_all(&request("flood", None, "{}")).unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 403");
            // Read the rest of the reply; the next one begins with a status line again.
            let mut rest = [0; 4096];
            loop {
                let read = stream.read(&mut rest).unwrap();
                answers.extend_from_slice(&rest[..read]);
                if answers.ends_with(b"}") {
                    break;
                }
            }
        }
    });
    program
        .until("all refused calls are counted", |program| {
            (program.refused(OTHER.uid) == CALLS).then_some(())
        })
        .await;
    flood.join().unwrap();
    let lines = program.lines();
    let mut seconds = std::collections::BTreeSet::new();
    for line in &lines {
        let fields = &line["fields"];
        assert_eq!((&fields["allowed"], &fields["status"]), (&json!(false), &json!(403)), "{line}");
        assert_eq!(fields["action"], "POST /vms/{vm}/exec");
        assert!(fields["first"].as_str() <= fields["last"].as_str(), "{line}");
        let second = line["timestamp"].as_str().unwrap().split('.').next().unwrap().to_owned();
        assert!(seconds.insert(second), "two entries in one second: {lines:?}");
    }
    // The operator's call in between has separate entries.
    let exec = ["--json", r#"{"command":"true"}"#];
    assert_eq!(program.ask("mine", ROOT, "POST", "/vms/web-1/exec", &exec).await, 200);
    assert_eq!(program.lines_of("mine").len(), 2);
}

#[tokio::test]
async fn a_read_leaves_no_entry() {
    let program = Program::start().await;
    assert_eq!(program.ask("read", OTHER, "GET", "/vms/web-1/health", &[]).await, 200);
    assert_eq!(program.ask("late", OTHER, "POST", "/vms/web-1/exec", &["--json", "{}"]).await, 403);
    program
        .until("an entry of the refused call", |program| {
            (program.refused(OTHER.uid) == 1).then_some(())
        })
        .await;
    assert_eq!(program.lines_of("read"), Vec::<Value>::new());
}

#[tokio::test]
async fn neither_log_contains_an_argument_or_a_token() {
    let program = Program::start().await;
    let (right, wrong) = (bearer(TOKEN), bearer(WRONG_TOKEN));
    let bodies = [
        json!({ "command": "echo", "args": [SECRET] }),
        json!({ "command": "/nowhere", "args": [SECRET] }),
        json!({ "command": "echo", "args": [SECRET], "more": SECRET }),
        json!({ "command": "echo", "args": { "no": SECRET } }),
        json!({ "command": "echo", "args": [format!("{SECRET}\0")] }),
    ];
    for (number, body) in bodies.iter().enumerate() {
        let body = body.to_string();
        for (name, shown) in [("right", right.as_str()), ("wrong", &wrong), ("none", "X-None: 0")] {
            let id = format!("{name}-{number}");
            let more = ["--json", &body, "--header", shown];
            program.ask(&id, ROOT, "POST", "/vms/web-1/exec", &more).await;
            if name == "right" {
                program.line(&id).await;
            }
        }
    }
    program
        .until("the refused calls are counted", |program| (program.refused(0) == 5).then_some(()))
        .await;
    let audit = fs::read_to_string(program.path("audit")).unwrap();
    for (name, text) in [("audit", &audit), ("log", &program.log())] {
        for secret in [SECRET, TOKEN, WRONG_TOKEN] {
            assert!(!text.contains(secret), "the {name} contains {secret}:\n{text}");
        }
    }
    let mode = fs::metadata(program.path("audit")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_a_program_runs_leaves_an_entry_too() {
    let program = Program::start().await;
    let marker = program.path("marker");
    let script = format!("touch {}; exec sleep 600", marker.display());
    let body = json!({ "command": "sh", "args": ["-c", script] }).to_string();
    let mut stream = TcpStream::connect(program.address()).unwrap();
    stream.write_all(&request("hung-up", Some(TOKEN), &body)).unwrap();
    program.until("the program runs", |_| marker.exists().then_some(())).await;
    drop(stream);
    let line = program.line("hung-up").await;
    assert_eq!((&line["identity"], &line["uid"]), (&json!("token"), &json!(0)));
    assert_eq!((&line["command"], &line["allowed"]), (&json!("\"sh\""), &json!(true)));
    assert_eq!(line["status"], Value::Null, "no reply was sent");
}

#[tokio::test]
async fn an_entry_names_the_exec_and_its_outcome_after_the_end_of_the_stream() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let program = Program::start().await;
    let here = "/vms/web-1/exec";
    let with = |more: Value| {
        let mut body = json!({ "command": "sh", "args": ["-c", "exit 3"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body.to_string()
    };
    let lines = "Accept: application/x-ndjson";
    for (id, more, header, status, outcome) in [
        ("exits", json!({ "id": "job-1" }), "X-None: 0", 200, "exited 3"),
        ("streams", json!({ "id": "job-2" }), lines, 200, "exited 3"),
        ("lives-on", json!({ "id": "job-3", "detach": true }), lines, 202, "detached"),
        (
            "conflicts",
            json!({ "id": "job-1", "env": { "A": SECRET } }),
            lines,
            409,
            "exec_conflict",
        ),
        (
            "is-late",
            json!({ "id": "job-4", "args": ["-c", "sleep 9"], "timeout_ms": 50 }),
            "X-None: 0",
            200,
            "timed_out",
        ),
    ] {
        let body = with(more.clone());
        let asked = ["--json", &body, "--header", header];
        assert_eq!(program.ask(id, ROOT, "POST", here, &asked).await, status, "{id}");
        let line = program.line(id).await;
        let found = [&line["exec_id"], &line["outcome"], &line["status"]];
        assert_eq!(found, [&more["id"], &json!(outcome), &json!(status)], "{line}");
    }
    let many = json!({ "vms": ["*"], "exec": { "command": "false" } }).to_string();
    assert_eq!(program.ask("many", ROOT, "POST", "/exec", &["--json", &many]).await, 200);
    let line = program.line("many").await;
    let outcome = "1 vms: 0 succeeded, 1 failed, 0 problems, 0 skipped";
    assert_eq!((&line["outcome"], &line["command"]), (&json!(outcome), &json!("\"false\"")));
    // A stream that is still open has no final entry yet.
    let marker = program.path("marker");
    let script = format!("touch {}; exec sleep 600", marker.display());
    let body = json!({ "command": "sh", "args": ["-c", script] }).to_string();
    // Not a blocking stream: the VM runs in this thread.
    let mut stream = tokio::net::TcpStream::connect(program.address()).await.unwrap();
    let head = String::from_utf8(request("goes-on", Some(TOKEN), &body)).unwrap();
    let head = head.replace("Host: localhost\r\n", &format!("Host: localhost\r\n{lines}\r\n"));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    program.until("the program runs", |_| marker.exists().then_some(())).await;
    let stages: Vec<_> =
        program.lines_of("goes-on").iter().map(|line| line["fields"]["stage"].clone()).collect();
    assert_eq!(stages, [json!("begin")]);
    drop(stream);
    let line = program.line("goes-on").await;
    assert_eq!((&line["status"], &line["outcome"]), (&json!(200), &Value::Null));
    assert!(!fs::read_to_string(program.path("audit")).unwrap().contains(SECRET));
}
