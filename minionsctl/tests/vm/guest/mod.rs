//! Guests on a real kernel, from a bare root file system to a working network: a Debian with systemd in which
//! `deploy/install-agent` has installed the agent, and a guest whose first process is the agent.

mod bridge;
mod debian;
mod dns;
mod first_process;
mod freeze;
pub(crate) mod machine;
mod port;
mod reach;
mod recipe;
mod rollback;
mod standing;
mod survival;
