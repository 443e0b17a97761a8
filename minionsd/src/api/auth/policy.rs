//! The configured rules by which callers get their scopes.

use super::operators::Operators;
use super::peer::Peer;
use super::token::Token;
use crate::config::{TcpOperate, TcpRead};
use minions_api::service::{Identity, Scope};
use std::path::PathBuf;
use std::sync::Arc;

/// Warning with `tcp_operate = "uid"`, logged at start and included in `GET /readyz`.
pub(crate) const UID_WARNING: &str = "tcp_operate = \"uid\": everyone who can use a relay that an operator \
    runs (user networking of QEMU, ssh -L, socat, a container proxy) can operate";

/// The rules. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) operators: Arc<Operators>,
    pub(crate) token: Option<Token>,
    pub(crate) tcp_read: TcpRead,
    pub(crate) tcp_operate: TcpOperate,
    /// Path of the Unix socket, for hints in refusals only.
    pub(crate) unix_socket: Option<PathBuf>,
    /// Path of the token file, for hints in refusals only.
    pub(crate) token_file: Option<PathBuf>,
}

impl Policy {
    /// Reports whether a peer with an operator's uid may operate over this connection.
    pub(super) fn uid_authorizes(&self, peer: &Peer) -> bool {
        match self.tcp_operate {
            TcpOperate::Token => peer.is_unix(),
            TcpOperate::Uid => peer.is_local(),
        }
    }

    /// Reports whether every user who can make a connection of this kind may read.
    pub(super) fn opens_reads(&self, peer: &Peer) -> bool {
        match self.tcp_read {
            TcpRead::Local => peer.is_local(),
            TcpRead::Token => peer.is_unix(),
        }
    }

    /// Returns the reason why a caller does not have `scope`, with every way to get it.
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
            format!("its uid is not an operator's (root, group {})", self.operators.group())
        } else {
            "the request came over TCP without the bearer token".to_owned()
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
