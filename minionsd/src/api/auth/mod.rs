//! Authentication and authorization of HTTP requests.
//!
//! ```text
//!  connection ─▶ Peer: Unix credentials, or the uid of a loopback TCP connection
//!  request    ─▶ Caller: the bearer token if the request has one, otherwise the peer
//!  route      ─▶ Scope: declared once in the route list, checked by its layer ([`guard`](super::guard))
//! ```
//!
//! | caller | read | operate |
//! |---|---|---|
//! | bearer token, any listener | yes | yes |
//! | Unix socket: root, the daemon's own uid, a member of the operators' group | yes | yes |
//! | Unix socket: any other user that the file's mode lets connect | yes | no |
//! | loopback TCP without a token | unless `tcp_read = "token"` | no |
//! | loopback TCP, an operator's uid, with `tcp_operate = "uid"` | yes | yes |
//! | any other TCP without a token | no | no |
//!
//! The uid of a TCP connection is the uid of the process that connected. A relay that runs as root (QEMU's user
//! networking, `ssh -L`, socat, a container proxy) connects on behalf of others, so this uid identifies the caller in
//! the audit log but does not authorize it.
//!
//! An invalid token is refused even where no token is required.

mod caller;
mod operators;
mod peer;
mod peer_groups;
mod policy;
mod sock_diag;
mod token;

pub(super) use caller::Caller;
pub(crate) use operators::Operators;
pub(crate) use peer::Peer;
pub(crate) use policy::{Policy, UID_WARNING};
pub(crate) use token::Token;
pub use token::TokenError;
