//! The configured rules by which callers get their scopes.

use super::{Operators, Peer, Token};
use crate::config::{TcpOperate, TcpRead};
use minions_api::service::{Identity, Scope};
use std::path::PathBuf;
use std::sync::Arc;

/// Told at start and by `GET /readyz` with `tcp_operate = "uid"`.
pub(crate) const UID_WARNING: &str = "tcp_operate = \"uid\": a relay that an operator runs (user \
    networking of QEMU, ssh -L, socat, a container proxy) operates for everyone who can use it";

/// The rules. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) operators: Arc<Operators>,
    pub(crate) token: Option<Token>,
    pub(crate) tcp_read: TcpRead,
    pub(crate) tcp_operate: TcpOperate,
    /// For advice only.
    pub(crate) unix_socket: Option<PathBuf>,
    /// For advice only.
    pub(crate) token_file: Option<PathBuf>,
}

impl Policy {
    /// Whether the uid of `peer` authorizes it to operate, if it is an operator's.
    pub(super) fn uid_authorizes(&self, peer: &Peer) -> bool {
        match self.tcp_operate {
            TcpOperate::Token => peer.is_unix(),
            TcpOperate::Uid => peer.is_local(),
        }
    }

    /// Whether every user who can connect as `peer` did is allowed to read.
    pub(super) fn opens_reads(&self, peer: &Peer) -> bool {
        match self.tcp_read {
            TcpRead::Local => peer.is_local(),
            TcpRead::Token => peer.is_unix(),
        }
    }

    /// Why a caller does not have `scope`, and how it can get it.
    pub(super) fn refusal(&self, scope: Scope, peer: &Peer, identity: &Identity) -> String {
        let who = match identity {
            Identity::User { uid } => format!("user {uid}"),
            Identity::Token | Identity::Unknown => "an unidentified caller".to_owned(),
        };
        let what = match scope {
            Scope::Read => "not allowed to read",
            Scope::Operate => "not allowed to operate",
        };
        let why = if peer.is_unix() {
            format!("it is neither root nor in the group {}", self.operators.group())
        } else if self.uid_authorizes(peer) {
            format!("no operator is known by that uid (root, the group {})", self.operators.group())
        } else {
            "a TCP connection without the bearer token".to_owned()
        };
        format!("{who} is {what}: {why}. {} or {}", self.unix_advice(), self.token_advice())
    }

    fn unix_advice(&self) -> String {
        let group = self.operators.group();
        match &self.unix_socket {
            Some(path) => format!(
                "Use the Unix socket as root or as a member of the group {group} \
                 (curl --unix-socket {})",
                path.display()
            ),
            None => format!(
                "Use the Unix socket as root or as a member of the group {group} (set `unix_socket`)"
            ),
        }
    }

    fn token_advice(&self) -> String {
        match &self.token_file {
            Some(path) => format!(
                "send the bearer token (curl -H \"Authorization: Bearer $(cat {})\")",
                path.display()
            ),
            None => "send a bearer token (Authorization: Bearer …; set `token_file`)".to_owned(),
        }
    }
}
