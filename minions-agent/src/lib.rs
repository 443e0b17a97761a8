//! The agent inside a guest: a small root daemon that a host talks to over VSOCK.
//!
//! It needs no network of its own, which is the point: it is how the guest gets its network. It
//! trusts nobody either. Whatever arrives is bounded in size, in time and in number, and whatever
//! a program in the guest writes becomes at most one frame.
//!
//! ```text
//!  listen::vsock ──┐                       ┌─ ops::health
//!                  ├─▶ Agent::serve ─▶ session ─▶ ops ─┼─ ops::exec ────────────▶ exec/
//!  listen::hybrid ─┘   one stream      frames  one     ├─ ops::configure_network ▶ net/
//!                                              reply   ├─ ops::report_status
//!                                                      └─ ops::write_file ───────▶ files/
//! ```
//!
//! # Layout
//!
//! * [`agent`]: what all connections share, and [`Agent::serve`] for one stream behind its
//!   handshake.
//! * [`capability`]: which kinds of request this agent answers (`--allow`).
//! * [`init`]: the first process of a VM that has no other (`--init`).
//! * [`listen`]: where connections come from: VSOCK, or a Unix socket that plays the VMM, either of
//!   them passed on by a service manager if that holds it.
//! * [`mod@log`]: lines for standard error, which may hang without anybody noticing.
//! * [`supervision`]: what the service manager is told.
//! * `session`: one connection; frames in, replies out, deadlines around both.
//! * `ops`: one file a request. They validate, delegate, and say in one place what went wrong.
//! * `exec`: a child process, its process group, its output within bounds.
//! * `net`: one interface's address, the default route, the resolver's configuration.
//! * `files`: paths to files, resolved so that no other user of the guest turns them elsewhere.
//! * `replace_file`: a file is either the old one or the new one, never a mixture.
//! * `power`: the guest's end.
//! * [`privileges`]: what root may do that this agent will never need.
//! * [`protection`]: what keeps the agent alive and answering beside its programs.
//! * `cgroup`: the tree of control groups.
//! * `identity`: which boot and which agent this is.

pub mod agent;
pub mod capability;
mod cgroup;
mod exec;
mod files;
mod identity;
pub mod init;
pub mod listen;
pub mod log;
mod net;
mod ops;
mod power;
pub mod privileges;
pub mod protection;
mod replace_file;
mod session;
pub mod supervision;
mod watched;

pub use agent::{Agent, Config, StartError};
pub use capability::{Capabilities, Capability};
pub use exec::ProgramGroups;
