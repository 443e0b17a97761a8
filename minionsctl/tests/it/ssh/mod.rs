//! The real SSH client of the system against `minionsctl ssh-proxy`, a daemon and the real agent's library.

mod connections;
mod failures;
mod guest;
mod input_limits;
mod listeners;
mod memory;
mod programs;
mod sftp;
mod sftp_packets;
mod terminal;
mod transfers;
