//! `minionsctl cp`, with a daemon and agents as processes, or with a hostile server.

mod deceptions;
mod faults;
mod guest;
mod hostile;
mod hostile_server;
mod many;
mod rules;
mod streams;
mod transfers;
mod trees;
