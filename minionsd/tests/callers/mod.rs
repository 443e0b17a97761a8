//! Requests as several users of this machine: `curl` under `setpriv`, over real sockets.
#![allow(dead_code, reason = "each test file uses some of it")]

use serde_json::Value;
use std::path::Path;
use testkit::daemon::DEADLINE;
use tokio::process::Command;

/// A user, their primary group, and at most one other group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) supplementary: Option<u32>,
}

pub(crate) const ROOT: User = User { uid: 0, gid: 0, supplementary: None };

/// `daemon`, whose primary group is [`GROUP`]: every Debian has both, under these numbers.
pub(crate) const MEMBER: User = User { uid: 1, gid: 1, supplementary: None };

/// `nobody`, who is in no group that matters.
pub(crate) const OTHER: User = User { uid: 65534, gid: 65534, supplementary: None };

/// The operators' group of a daemon whose operators [`MEMBER`] is one of.
pub(crate) const GROUP: &str = "daemon";

/// The daemon's token, and one that isn't.
pub(crate) const TOKEN: &str = "right-right-right-right-right";
pub(crate) const WRONG_TOKEN: &str = "wrong-wrong-wrong-wrong-wrong";

/// How to reach a daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    Unix(&'a Path),
    /// The origin of a URL.
    Tcp(&'a str),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// As it was sent, in lower case: one `name: value` a line.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Refused, or not understood, for want of rights.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.status, 401 | 403)
    }
}

/// Ends the test where it can't be several users.
pub(crate) fn must_be_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test speaks to the daemon as several users, which only root can: run it with sudo"
    );
    let member = nix::unistd::User::from_uid(MEMBER.uid.into()).unwrap();
    let group = nix::unistd::Group::from_name(GROUP).unwrap();
    assert_eq!(
        (member.map(|user| user.gid), group.map(|group| group.gid)),
        (Some(MEMBER.gid.into()), Some(MEMBER.gid.into())),
        "this test needs Debian's user and group `daemon`, with number 1"
    );
}

/// Sends one request as `user`; `None` if there was no connection.
pub(crate) async fn curl(user: User, way: Way<'_>, path: &str, more: &[&str]) -> Option<Answer> {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
    match user.supplementary {
        Some(group) => command.arg(format!("--groups={group}")),
        None => command.arg("--clear-groups"),
    };
    command.args(["curl", "--disable", "--silent", "--show-error"]);
    command.args(["--include", "--noproxy", "*", "--max-time"]);
    command.arg(DEADLINE.as_secs().to_string()).args(more);
    match way {
        Way::Unix(socket) => {
            command.arg("--unix-socket").arg(socket).arg(format!("http://localhost{path}"));
        }
        Way::Tcp(origin) => {
            command.arg(format!("{origin}{path}"));
        }
    }
    let output = command.kill_on_drop(true).output().await;
    let output = output.expect("setpriv (util-linux) starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        // 7: failed to connect.
        assert_eq!(output.status.code(), Some(7), "{output:?}: is curl there?");
        return None;
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head}"));
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

/// The arguments that show a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}
