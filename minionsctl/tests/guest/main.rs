//! Guests from a bare root file system to a network, on a real kernel: a Debian with systemd that
//! `deploy/install-agent` has put the agent into, and a guest whose first process is the agent.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod bridge;
mod debian;
mod dns;
mod first_process;
mod machine;
mod port;
mod reach;
mod recipe;
mod rollback;
mod standing;
mod survival;
