//! Access rules: every operation of the OpenAPI document, by every kind of caller, over every listener, under
//! every `tcp_read` and `tcp_operate`.

use crate::callers::{
    Answer, GROUP, MEMBER, OTHER, ROOT, TOKEN, User, WRONG_TOKEN, Way, bearer, curl, curl_all,
};
use futures_util::StreamExt;
use minionsd::config::{TcpOperate, TcpRead, TlsFiles, TokenFile};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use tempfile::{NamedTempFile, TempDir};
use testkit::daemon::{DEADLINE, TestDaemon};
use testkit::fake_vmm::{Behaviour, FakeVmm, agent};
use tokio::time::timeout;

/// Number of callers at the same time: enough for two processors.
const AT_ONCE: usize = 4;

/// Operation of the document.
#[derive(Debug)]
struct Operation {
    method: String,
    /// Path with the name of an existing VM.
    path: String,
    operates: bool,
}

/// The listener that a caller uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Unix,
    Tcp,
    Tls,
}

/// Kind of caller.
#[derive(Debug, Clone, Copy)]
struct Case {
    who: &'static str,
    user: User,
    listener: Listener,
    token: Option<&'static str>,
}

/// Settings that decide over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    read: TcpRead,
    operate: TcpOperate,
}

const DEFAULT: Rules = Rules { read: TcpRead::Local, operate: TcpOperate::Token };

const ALL_RULES: [Rules; 4] = [
    DEFAULT,
    Rules { read: TcpRead::Token, operate: TcpOperate::Token },
    Rules { read: TcpRead::Local, operate: TcpOperate::Uid },
    Rules { read: TcpRead::Token, operate: TcpOperate::Uid },
];

/// Access that is promised to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Operates,
    Reads,
    /// The caller is identified, but has no scope.
    Nothing,
    /// The caller's credential is wrong.
    Unauthenticated,
    NoConnection,
}

/// Process in the operators' group whose user is not a member in the user database: `Group=`, `sg`.
const IN_GROUP: User = User { gid: MEMBER.gid, ..OTHER };

/// Process with the operators' group as a supplementary group: `SupplementaryGroups=`, `--group-add`.
const ALSO_IN_GROUP: User = User { supplementary: Some(MEMBER.gid), ..OTHER };

fn cases(listener: Listener) -> Vec<Case> {
    let case = |who, user, token| Case { who, user, listener, token };
    vec![
        case("root", ROOT, None),
        case("a member", MEMBER, None),
        case("a process in the group", IN_GROUP, None),
        case("a process with the supplementary group", ALSO_IN_GROUP, None),
        case("another user", OTHER, None),
        case("the token", IN_GROUP, Some(TOKEN)),
        case("a wrong token", IN_GROUP, Some(WRONG_TOKEN)),
        case("root with a wrong token", ROOT, Some(WRONG_TOKEN)),
    ]
}

/// Returns the promise to a caller: the access rules, written down independently of the daemon.
fn promise(case: &Case, rules: Rules) -> Promise {
    match (case.token, case.listener) {
        (Some(WRONG_TOKEN), _) => Promise::Unauthenticated,
        (Some(_), _) => Promise::Operates,
        (None, Listener::Unix) if case.who == "another user" => Promise::NoConnection,
        (None, Listener::Unix) => Promise::Operates,
        (None, Listener::Tcp | Listener::Tls) => {
            let is_operator = matches!(case.who, "root" | "a member");
            match rules {
                Rules { operate: TcpOperate::Uid, .. } if is_operator => Promise::Operates,
                Rules { read: TcpRead::Local, .. } => Promise::Reads,
                Rules { read: TcpRead::Token, .. } => Promise::Nothing,
            }
        }
    }
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
            // An operation that changes something must never be open to all, whatever the document says.
            assert!(operates || method == "get", "{method} {path} is open to all");
            let (method, path) = (method.to_uppercase(), path.replace("{vm}", "web-1"));
            // Any other parameter gets a name that does not exist.
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

/// Daemon with [`TOKEN`] and the files for its listeners. Its VM exists and has no agent.
struct Site {
    daemon: TestDaemon,
    is_tls: bool,
    _files: TempDir,
}

impl Site {
    async fn start(rules: Rules, is_tls: bool) -> Self {
        crate::callers::must_be_root();
        let files = tempfile::tempdir().unwrap();
        let path = |name: &str| files.path().join(name);
        fs::write(path("token"), TOKEN).unwrap();
        fs::set_permissions(path("token"), Permissions::from_mode(0o600)).unwrap();
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(path("certificate"), pair.cert.pem()).unwrap();
        fs::write(path("key"), pair.signing_key.serialize_pem()).unwrap();
        let daemon = TestDaemon::with(|config| {
            config.operator_group = GROUP.into();
            config.token_file = Some(TokenFile::Existing(path("token")));
            (config.tcp_read, config.tcp_operate) = (rules.read, rules.operate);
            config.tls = is_tls.then(|| TlsFiles {
                certificate: path("certificate"),
                key: path("key"),
                client_ca: None,
            });
        })
        .await;
        Self { daemon, is_tls, _files: files }
    }

    /// Returns the callers of this daemon's listeners.
    fn cases(&self) -> Vec<Case> {
        let tcp = if self.is_tls { Listener::Tls } else { Listener::Tcp };
        [cases(Listener::Unix), cases(tcp)].concat()
    }

    async fn ask(&self, case: &Case, method: &str, path: &str, more: &[&str]) -> Option<Answer> {
        let operation = Operation { method: method.into(), path: path.into(), operates: false };
        self.ask_all(case, &[(&operation, more.to_vec())]).await.remove(0)
    }

    /// Sends requests one after another, each with more arguments of `curl`.
    async fn ask_all(
        &self,
        case: &Case,
        requests: &[(&Operation, Vec<&str>)],
    ) -> Vec<Option<Answer>> {
        let socket = self.daemon.unix_socket();
        let origin = match case.listener {
            Listener::Unix | Listener::Tcp => self.daemon.url(""),
            Listener::Tls => format!("https://{}", self.daemon.address),
        };
        let way = match case.listener {
            Listener::Unix => Way::Unix(&socket),
            Listener::Tcp | Listener::Tls => Way::Tcp(&origin),
        };
        let header = case.token.map(bearer);
        let requests: Vec<_> = requests
            .iter()
            .map(|(operation, more)| {
                // The certificate is self-signed; its verification is tested elsewhere.
                let mut all = vec!["--insecure", "--request", &operation.method];
                if let Some(header) = &header {
                    all.extend(["--header", header]);
                }
                all.extend(more);
                (&operation.path[..], all)
            })
            .collect();
        curl_all(case.user, way, &requests).await
    }
}

/// Sends these operations one after another.
async fn ask(site: &Site, case: &Case, operations: &[Operation]) -> Vec<Option<Answer>> {
    let requests: Vec<_> = operations
        .iter()
        .map(|operation| {
            // Operations that never end reject this header; the others ignore it.
            let mut more = vec!["--header", "Last-Event-ID: nonsense"];
            if operation.method != "GET" {
                more.extend(["--json", "{}"]);
            }
            (operation, more)
        })
        .collect();
    site.ask_all(case, &requests).await
}

/// Checks the answer to this operation against the promise.
#[track_caller]
fn check(promise: Promise, operation: &Operation, answer: Option<&Answer>, about: &str) {
    let Some(answer) = answer else {
        assert_eq!(promise, Promise::NoConnection, "{about}");
        return;
    };
    let code = answer.json()["code"].clone();
    match promise {
        Promise::NoConnection => panic!("{about}: connected"),
        Promise::Reads | Promise::Nothing if operation.operates => {
            assert_eq!((answer.status, code), (403, json!("forbidden")), "{about}");
            let detail = answer.json()["detail"].to_string();
            for hint in ["--unix-socket", "Authorization: Bearer"] {
                assert!(detail.contains(hint), "{about}: {detail}");
            }
        }
        Promise::Nothing | Promise::Unauthenticated => {
            assert_eq!((answer.status, code), (401, json!("unauthenticated")), "{about}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{about}: {}", answer.head);
        }
        // The route decides about the rest of the answer, but it was reached.
        Promise::Reads | Promise::Operates => {
            assert!(!answer.is_refusal(), "{about}: {answer:?}");
            // A declaration or pool of this name does not exist.
            let has_no_route = code == json!("not_found") || answer.status == 405;
            assert!(!has_no_route, "{about}: no such route: {answer:?}");
        }
    }
}

#[tokio::test]
async fn every_operation_is_open_to_exactly_the_promised_callers() {
    let operations = operations();
    assert!(operations.iter().any(|operation| operation.operates), "{operations:?}");
    for rules in ALL_RULES {
        for is_tls in [false, true] {
            let site = Site::start(rules, is_tls).await;
            let _vm = FakeVmm::start(site.daemon.sockets(), "web-1", Behaviour::Refuses).unwrap();
            site.daemon.until("/vms/web-1", |vm| vm.status == 200).await;
            let cases = site.cases();
            let (site, operations) = (&site, &operations);
            let asked = futures_util::stream::iter(&cases)
                .map(|case| async move { (case, ask(site, case, operations).await) });
            let answers: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
            assert_eq!(answers.len(), cases.len());
            for (case, answers) in answers {
                assert_eq!(answers.len(), operations.len());
                for (operation, answer) in operations.iter().zip(answers) {
                    let about = format!("{operation:?} by {case:?} under {rules:?}");
                    check(promise(case, rules), operation, answer.as_ref(), &about);
                }
            }
        }
    }
}

#[tokio::test]
async fn whoami_names_the_caller_and_its_scopes() {
    for rules in ALL_RULES {
        let site = Site::start(rules, false).await;
        for case in site.cases() {
            let answer = site.ask(&case, "GET", "/whoami", &[]).await;
            let scopes = match promise(&case, rules) {
                Promise::Operates => json!(["read", "operate"]),
                Promise::Reads => json!(["read"]),
                Promise::Nothing | Promise::Unauthenticated | Promise::NoConnection => continue,
            };
            let identity = match case.token {
                Some(_) => json!({ "kind": "token" }),
                None => json!({ "kind": "user", "uid": case.user.uid }),
            };
            let expected = json!({ "identity": identity, "scopes": scopes });
            assert_eq!(answer.unwrap().json(), expected, "{case:?} under {rules:?}");
        }
    }
}

#[tokio::test]
async fn pages_outside_the_document_follow_the_same_rules() {
    for rules in ALL_RULES {
        let site = Site::start(rules, false).await;
        let pages = ["/", "/docs/", "/docs/swagger-ui.css"].map(|path| Operation {
            method: "GET".into(),
            path: path.into(),
            operates: false,
        });
        for case in site.cases() {
            let answers = ask(&site, &case, &pages).await;
            for (page, answer) in pages.iter().zip(&answers) {
                let about = format!("{page:?} by {case:?} under {rules:?}");
                check(promise(&case, rules), page, answer.as_ref(), &about);
            }
        }
    }
}

/// Starts a relay that dials the daemon for its users, like `socat`, `ssh -L`, or QEMU's user networking. To
/// the kernel, its connections belong to root.
async fn relay(to: std::net::SocketAddr) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut daemon = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
            });
        }
    });
    origin
}

#[tokio::test]
async fn through_roots_relay_a_user_operates_only_where_uids_authorize() {
    for rules in [DEFAULT, Rules { operate: TcpOperate::Uid, ..DEFAULT }] {
        let site = Site::start(rules, false).await;
        let vm = Behaviour::Agent(agent().unwrap());
        let _vm = FakeVmm::start(site.daemon.sockets(), "web-1", vm).unwrap();
        site.daemon.until_state("web-1", "ready").await;
        let origin = relay(site.daemon.address).await;
        let read = curl(OTHER, Way::Tcp(&origin), "/vms/web-1/health", &[]).await.unwrap();
        assert_eq!(read.status, 200);
        let marker = site.daemon.sockets().join("marker");
        let body = json!({ "command": "touch", "args": [&marker] }).to_string();
        let exec = curl(OTHER, Way::Tcp(&origin), "/vms/web-1/exec", &["--json", &body]).await;
        let status = exec.unwrap().status;
        let warned = site.daemon.get("/readyz").await.json["detail"].to_string();
        match rules.operate {
            TcpOperate::Token => assert_eq!((status, marker.exists()), (403, false)),
            // The warning is justified.
            TcpOperate::Uid => assert_eq!((status, marker.exists()), (200, true)),
        }
        assert_eq!(warned.contains("tcp_operate"), rules != DEFAULT, "{warned}");
    }
}

#[tokio::test]
async fn a_refused_program_does_not_run() {
    for rules in ALL_RULES {
        let site = Site::start(rules, false).await;
        let vm = Behaviour::Agent(agent().unwrap());
        let _vm = FakeVmm::start(site.daemon.sockets(), "web-1", vm).unwrap();
        site.daemon.until_state("web-1", "ready").await;
        for case in site.cases() {
            let marker = site.daemon.sockets().join(format!("{:?} {}", case.listener, case.who));
            let body = json!({ "command": "touch", "args": [&marker] }).to_string();
            site.ask(&case, "POST", "/vms/web-1/exec", &["--json", &body]).await;
            let ran = promise(&case, rules) == Promise::Operates;
            assert_eq!(marker.exists(), ran, "{case:?} under {rules:?}");
        }
    }
}

#[tokio::test]
async fn the_daemon_does_not_start_with_an_unusable_token_file() {
    let cases = [
        (token_file(TOKEN, 0o644), "chmod 600"),
        (token_file(TOKEN, 0o640), "chmod 600"),
        (token_file("short", 0o600), "at least 22"),
        (token_file("", 0o600), "at least 22"),
    ];
    for (file, reason) in &cases {
        let error = start(file.path()).await;
        let path = file.path().to_str().unwrap();
        for word in ["token_file", path, reason] {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
        assert!(!error.contains(TOKEN), "{error}");
    }
    let error = start(Path::new("/nowhere/token")).await;
    assert!(error.contains("/nowhere/token") && error.contains("No such file"), "{error}");
}

/// Starts the program, which must end with a failure, and returns its error output.
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
    let output =
        timeout(DEADLINE, child).await.expect("the daemon ends because of the token file").unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
