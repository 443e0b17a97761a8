//! The agent inside a guest: a small root daemon that a host talks to over VSOCK.
//!
//! The agent works without a network, because it is what configures the guest's network. It does not
//! trust its peers: all input is bounded in size, time and number. The output of programs is buffered and
//! sent in bounded amounts.
//!
//! ```text
//!  listen::vsock ──┐                       ┌─ ops::health
//!                  ├─▶ Agent::serve ─▶ session ─▶ ops ─┼─ ops::exec ────────────▶ exec/
//!  listen::hybrid ─┘   one stream      frames  one     ├─ ops::configure_network ▶ net/
//!                                              reply   ├─ ops::report_status, report_sample
//!                                                      ├─ ops::write_file ───────▶ minions-tree
//!                                                      └─ ops::quiesce ──────────▶ quiesce/
//! ```
//!
//! # Layout
//!
//! * [`agent`]: state shared by all connections, and [`Agent::serve`] for one stream after its
//!   handshake.
//! * [`announce`]: tells the host that the agent listens.
//! * [`capability`]: the kinds of request that this agent answers (`--allow`).
//! * [`init`]: PID 1 of a VM without another init (`--init`).
//! * [`listen`]: listeners for connections: VSOCK, or a Unix socket that emulates the VMM; either can
//!   be a socket passed by the service manager.
//! * [`mod@log`]: log lines for standard error, which may block without blocking the agent.
//! * [`supervision`]: notifications to the service manager.
//! * `session`: one connection; frames in, replies out, deadlines around both.
//! * `ops`: one file for each request. They validate, delegate, and map errors to replies.
//! * `exec`: a child process, its process group, its bounded output.
//! * `mountinfo`: the mounts of the guest.
//! * `net`: interfaces, addresses, routes, the resolver's configuration.
//! * `netlink`: messages of routing netlink, through which `net` reads and changes the kernel's state.
//! * [`file_op`]: operations on files, each in a process of its own. Their parts that minionsctl also needs are in the
//!   crate `minions-tree`: path resolution that other users of the guest cannot redirect, and tar streams.
//! * [`forward`]: connections to ports and sockets inside the guest.
//! * `hooks`: programs of the guest's owner that run before or after an event.
//! * `generation`: restores from a snapshot and clones: the next generation of the guest, and its restore steps.
//! * `power`: power-off and reboot of the guest.
//! * [`privileges`]: drops the root privileges that this agent never needs.
//! * [`quiesce`]: freezes and thaws the guest's file systems for a snapshot.
//! * [`protection`]: keeps the agent alive and responsive while its programs run.
//! * `boot_clock`: the clock that starts with the guest's kernel.
//! * `cgroup`: the tree of control groups.
//! * `errno_name`: names of the kernel's error numbers.
//! * `error_chain`: text of an error together with its causes.
//! * `lock`: locks that stay usable after a panic.
//! * [`heap`]: settings of the allocator.
//! * `host_stream`: a connection of the host, of any transport.
//! * `task`: tasks and threads of the runtime.
//! * `identity`: the boot id and the agent's instance id.

pub mod agent;
pub mod announce;
mod boot_clock;
pub mod capability;
mod cgroup;
mod errno_name;
mod error_chain;
mod exec;
pub mod file_op;
pub mod forward;
mod generation;
#[cfg(target_env = "gnu")]
pub mod heap;
mod hooks;
mod host_stream;
mod identity;
pub mod init;
pub mod listen;
mod lock;
pub mod log;
mod mountinfo;
mod net;
mod netlink;
mod ops;
mod power;
pub mod privileges;
pub mod protection;
pub mod quiesce;
mod session;
pub mod supervision;
mod task;
mod watched;

pub use agent::{Agent, AgentConfig, StartError};
pub use capability::{Capabilities, Capability};
pub use error_chain::error_chain;
pub use exec::ProgramGroups;
