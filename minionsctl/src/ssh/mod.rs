//! SSH without sshd: an SSH server in the process that an SSH client starts as its `ProxyCommand`.
//!
//! ```text
//!  ssh ──ProxyCommand──▶ minionsctl ssh-proxy ──WebSocket──▶ minionsd ──VSOCK──▶ agent
//!      SSH over two pipes     │
//!                             ├ session channel ◀──▶ exec stream of one program
//!                             ├ session channel ◀──▶ exec stream of another program
//!                             ├ session channel ◀──▶ file session: subsystem sftp
//!                             └ forwarded channel ◀──▶ connection of a listener in the guest
//! ```
//!
//! minionsd authorizes the user who runs the proxy, so the server accepts every SSH client that this user starts,
//! without a key. The SSH user name is the user in the guest.
//!
//! * [`host_key`]: the host key of the local user, and the known-hosts file for it.
//! * [`client_options`]: options with which an SSH client uses the proxy; [`config_file`] installs them.
//! * [`server`]: service of a client. [`handler`]: its requests. [`services`]: services in addition to programs and
//!   connections.
//! * [`client_stream`]: standard input and output as the connection. [`input`]: received data, within the
//!   [`input_budget`].
//! * [`login`]: home directory and shell of a guest's user. [`request`]: a program before it is started.
//!   [`program`]: a program on a channel. [`stream`]: its exec stream. [`channel_output`]: its output and end, as SSH
//!   messages. [`connection`]: a connection to a port or socket in the guest. [`sftp`]: the subsystem for files.
//! * [`listeners`]: listening sockets in the guest. [`reverse_channel`]: their connections, on channels to the client.

mod channel_output;
mod client_options;
mod client_stream;
mod config_file;
mod connection;
mod handler;
mod host_key;
mod input;
mod input_budget;
mod listeners;
mod login;
mod program;
mod request;
mod reverse_channel;
mod server;
mod services;
mod sftp;
mod stream;

pub(crate) use client_options::ClientOptions;
pub(crate) use config_file::install;
pub(crate) use host_key::HostIdentity;
pub(crate) use server::serve;
