//! Who may do what: every operation of the document, by every kind of caller.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod callers;

use callers::{Answer, GROUP, MEMBER, OTHER, ROOT, TOKEN, User, WRONG_TOKEN, Way, bearer, curl};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tempfile::NamedTempFile;
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::time::timeout;

/// One operation of the document.
#[derive(Debug)]
struct Operation {
    method: String,
    /// With the VM that is there.
    path: String,
    operates: bool,
}

/// A kind of caller, and what is promised to it.
struct Case {
    who: &'static str,
    user: User,
    over_unix: bool,
    token: Option<&'static str>,
    promise: Promise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Operates,
    Reads,
    Unauthenticated,
    NoConnection,
}

fn cases() -> Vec<Case> {
    use Promise::{NoConnection, Operates, Reads, Unauthenticated};
    // In the group by its process alone, which the user database doesn't know: it connects.
    let guest = User { uid: OTHER.uid, gid: MEMBER.gid };
    let case = |who, user, over_unix, token, promise| Case { who, user, over_unix, token, promise };
    vec![
        case("root over Unix", ROOT, true, None, Operates),
        case("root over TCP", ROOT, false, None, Operates),
        case("a member over Unix", MEMBER, true, None, Operates),
        case("a member over TCP", MEMBER, false, None, Operates),
        case("another over Unix", OTHER, true, None, NoConnection),
        case("another over TCP", OTHER, false, None, Reads),
        case("another with the group's right to connect", guest, true, None, Reads),
        case("the token over TCP", OTHER, false, Some(TOKEN), Operates),
        case("the token over Unix", guest, true, Some(TOKEN), Operates),
        case("a wrong token over TCP", OTHER, false, Some(WRONG_TOKEN), Unauthenticated),
        case("a wrong token over Unix", guest, true, Some(WRONG_TOKEN), Unauthenticated),
        case("root with a wrong token over TCP", ROOT, false, Some(WRONG_TOKEN), Unauthenticated),
        case("root with a wrong token over Unix", ROOT, true, Some(WRONG_TOKEN), Unauthenticated),
    ]
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(&minionsd::openapi_json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let operates = match operation["x-scope"].as_str() {
                Some("read") => false,
                Some("operate") => true,
                scope => panic!("{method} {path} has the scope {scope:?}"),
            };
            // What changes something is never open to all, whatever the document says.
            assert!(operates || method == "get", "{method} {path} is open to all");
            let (method, path) = (method.to_uppercase(), path.replace("{vm}", "web-1"));
            // Any other parameter: whatever it means, nothing of this name is there.
            let path = path.split('/').map(|part| if part.starts_with('{') { "0" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            operations.push(Operation { method, path, operates });
        }
    }
    operations
}

fn token_file(text: &str, mode: u32) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
    file
}

async fn daemon(token: &Path) -> TestDaemon {
    callers::must_be_root();
    TestDaemon::with(|config| {
        config.operator_group = GROUP.into();
        config.token_file = Some(token.to_owned());
    })
    .await
}

async fn ask(daemon: &TestDaemon, case: &Case, method: &str, path: &str) -> Option<Answer> {
    let (socket, origin) = (daemon.unix_socket(), daemon.url(""));
    let way = if case.over_unix { Way::Unix(&socket) } else { Way::Tcp(&origin) };
    let shown = case.token.map(bearer);
    let mut more = vec!["--request", method];
    if let Some(shown) = &shown {
        more.extend(["--header", shown]);
    }
    if method != "GET" {
        more.extend(["--json", "{}"]);
    }
    // What never ends by itself refuses this, and only that.
    more.extend(["--header", "Last-Event-ID: nonsense"]);
    curl(case.user, way, path, &more).await
}

/// What the promise says about this operation.
#[track_caller]
fn check(promise: Promise, operation: &Operation, answer: Option<&Answer>, about: &str) {
    let Some(answer) = answer else {
        assert_eq!(promise, Promise::NoConnection, "{about}");
        return;
    };
    let code = answer.json()["code"].clone();
    match promise {
        Promise::NoConnection => panic!("{about}: connected"),
        Promise::Unauthenticated => {
            assert_eq!((answer.status, code), (401, json!("unauthenticated")), "{about}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{about}: {}", answer.head);
        }
        Promise::Reads if operation.operates => {
            assert_eq!((answer.status, code), (403, json!("forbidden")), "{about}");
        }
        // What the route makes of it is its own affair, but it was asked.
        Promise::Reads | Promise::Operates => {
            assert!(!answer.is_refusal(), "{about}: {answer:?}");
            assert!(!matches!(answer.status, 404 | 405), "{about}: no such route: {answer:?}");
        }
    }
}

#[tokio::test]
async fn every_operation_is_open_to_exactly_those_it_is_meant_for() {
    let token = token_file(TOKEN, 0o600);
    let daemon = daemon(token.path()).await;
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", Behaviour::Refuses).unwrap();
    daemon.until("/vms/web-1", |vm| vm.status == 200).await;
    let (operations, cases) = (operations(), cases());
    assert!(operations.iter().any(|operation| operation.operates), "{operations:?}");
    for operation in &operations {
        let Operation { method, path, .. } = operation;
        for case in &cases {
            let answer = ask(&daemon, case, method, path).await;
            let about = format!("{method} {path} by {}", case.who);
            check(case.promise, operation, answer.as_ref(), &about);
        }
    }
}

#[tokio::test]
async fn whoami_says_who_one_is_and_what_one_may() {
    let token = token_file(TOKEN, 0o600);
    let daemon = daemon(token.path()).await;
    for case in cases() {
        let answer = ask(&daemon, &case, "GET", "/whoami").await;
        let scopes = match case.promise {
            Promise::Operates => json!(["read", "operate"]),
            Promise::Reads => json!(["read"]),
            Promise::Unauthenticated | Promise::NoConnection => continue,
        };
        let identity = match case.token {
            Some(_) => json!({ "kind": "token" }),
            None => json!({ "kind": "user", "uid": case.user.uid }),
        };
        let expected = json!({ "identity": identity, "scopes": scopes });
        assert_eq!(answer.unwrap().json(), expected, "{}", case.who);
    }
}

#[tokio::test]
async fn what_is_no_operation_is_held_to_its_token_too() {
    let token = token_file(TOKEN, 0o600);
    let daemon = daemon(token.path()).await;
    for path in ["/docs/", "/docs/swagger-ui.css"] {
        for case in cases() {
            let operation = Operation { method: "GET".into(), path: path.into(), operates: false };
            let answer = ask(&daemon, &case, "GET", path).await;
            check(case.promise, &operation, answer.as_ref(), &format!("{path} by {}", case.who));
        }
    }
}

#[tokio::test]
async fn a_refused_program_does_not_run() {
    let token = token_file(TOKEN, 0o600);
    let daemon = daemon(token.path()).await;
    let vm = Behaviour::Agent(agent().unwrap());
    let _vm = FakeVmm::start(daemon.sockets(), "web-1", vm).unwrap();
    daemon.until_state("web-1", "ready").await;
    let (socket, origin) = (daemon.unix_socket(), daemon.url(""));
    for case in cases() {
        let marker = daemon.sockets().join(case.who.replace(' ', "-"));
        let way = if case.over_unix { Way::Unix(&socket) } else { Way::Tcp(&origin) };
        let shown = case.token.map(bearer).unwrap_or_else(|| "X-None: 0".into());
        let body = json!({ "command": "touch", "args": [&marker] }).to_string();
        curl(case.user, way, "/vms/web-1/exec", &["--header", &shown, "--json", &body]).await;
        assert_eq!(marker.exists(), case.promise == Promise::Operates, "{}", case.who);
    }
}

#[tokio::test]
async fn a_token_that_is_none_keeps_the_daemon_from_starting() {
    let cases = [
        (token_file(TOKEN, 0o644), "chmod 600"),
        (token_file(TOKEN, 0o640), "chmod 600"),
        (token_file("short", 0o600), "at least 22"),
        (token_file("", 0o600), "at least 22"),
    ];
    for (file, said) in &cases {
        let error = start(file.path()).await;
        let path = file.path().to_str().unwrap();
        for word in ["token_file", path, said] {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
        assert!(!error.contains(TOKEN), "{error}");
    }
    let error = start(Path::new("/nowhere/token")).await;
    assert!(error.contains("/nowhere/token") && error.contains("No such file"), "{error}");
}

/// What the program says before it ends with a failure.
async fn start(token: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_minionsd"))
        .args(["--listen", "127.0.0.1:0", "--unix-socket", "none", "--socket-dir"])
        .arg(dir.path())
        .arg("--token-file")
        .arg(token)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, child).await.expect("it starts with such a token").unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
