//! Requests as several users of this machine: `curl` under `setpriv`, over real sockets.

use serde_json::Value;
use std::path::Path;
use testkit::daemon::DEADLINE;
use tokio::process::Command;

/// User and primary group of a caller, and at most one supplementary group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) supplementary: Option<u32>,
}

pub(crate) const ROOT: User = User { uid: 0, gid: 0, supplementary: None };

/// User `daemon`, whose primary group is [`GROUP`]: every Debian has both, with these numbers.
pub(crate) const MEMBER: User = User { uid: 1, gid: 1, supplementary: None };

/// Unprivileged user, whose only group gives no rights.
pub(crate) const OTHER: User = User { uid: 65534, gid: 65534, supplementary: None };

/// Operators' group of a daemon that counts [`MEMBER`] as an operator.
pub(crate) const GROUP: &str = "daemon";

/// Token of the daemon, and a wrong one.
pub(crate) const TOKEN: &str = "right-right-right-right-right";
pub(crate) const WRONG_TOKEN: &str = "wrong-wrong-wrong-wrong-wrong";

/// Address of a daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    Unix(&'a Path),
    /// Origin of its URL.
    Tcp(&'a str),
}

/// Reply of the daemon.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Status line and headers as received, in lower case: one `name: value` on each line.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Reports whether the request was rejected for lack of rights.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

/// Fails the test unless it runs as root and the expected user and group exist.
pub(crate) fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test sends requests as several users, which only root can do: run it with sudo"
    );
    let member = nix::unistd::User::from_uid(MEMBER.uid.into()).unwrap();
    let group = nix::unistd::Group::from_name(GROUP).unwrap();
    assert_eq!(
        (member.map(|user| user.gid), group.map(|group| group.gid)),
        (Some(MEMBER.gid.into()), Some(MEMBER.gid.into())),
        "this test needs Debian's user and group `daemon`, with number 1"
    );
}

/// A path, and the arguments of `curl` for it.
pub(crate) type CurlRequest<'a> = (&'a str, Vec<&'a str>);

/// Sends one request as `user`; `None` if there was no connection.
pub(crate) async fn curl(user: User, way: Way<'_>, path: &str, more: &[&str]) -> Option<Answer> {
    curl_all(user, way, &[(path, more.to_vec())]).await.remove(0)
}

/// Sends requests one after another as `user`, from one process; `None` for each without a connection.
pub(crate) async fn curl_all(
    user: User,
    way: Way<'_>,
    requests: &[CurlRequest<'_>],
) -> Vec<Option<Answer>> {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
    match user.supplementary {
        Some(group) => command.arg(format!("--groups={group}")),
        None => command.arg("--clear-groups"),
    };
    command.args(["curl", "--disable"]);
    for (number, (path, more)) in requests.iter().enumerate() {
        // The options of each request are its own.
        command.args((number > 0).then_some("--next"));
        command.args(["--silent", "--show-error", "--include", "--noproxy", "*", "--max-time"]);
        command.arg(DEADLINE.as_secs().to_string()).args(["--write-out", ANSWER_END]).args(more);
        match way {
            Way::Unix(socket) => {
                command.arg("--unix-socket").arg(socket).arg(format!("http://localhost{path}"))
            }
            Way::Tcp(origin) => command.arg(format!("{origin}{path}")),
        };
    }
    let output = command.kill_on_drop(true).output().await;
    let output = output.expect("setpriv (util-linux) starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<_> = text.split_terminator(ANSWER_END).map(parse).collect();
    assert_eq!(answers.len(), requests.len(), "{output:?}: is curl installed?");
    if answers.iter().any(Option::is_none) {
        // curl's exit code 7: failed to connect.
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
    answers
}

/// Text after each answer in the output of `curl`.
const ANSWER_END: &str = "\n--end of the answer--\n";

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// Returns the header that carries a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}
