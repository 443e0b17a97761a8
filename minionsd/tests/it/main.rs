//! Tests of minionsd with fake VMMs: over its sockets, as its clients see it.
//!
//! One program, because linking it takes longer than most of its tests. Tests that put the machine under load are in
//! `load`, those that need a real VM in `vm`, and those that need a browser in `chromium`.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

#[path = "../shared/callers.rs"]
mod callers;

mod access;
mod agent_port;
mod agent_restarts;
mod announcements;
mod audit;
mod bad_input;
mod breaker;
mod browser;
mod declared;
mod events;
mod exec_collect;
mod exec_hostile;
mod exec_many;
mod exec_objects;
mod exec_plain;
mod exec_stream;
mod exec_websocket;
mod fault_matrix;
mod faults;
mod file_session;
mod files;
mod files_hostile;
mod files_killed;
mod forward;
mod forward_listen;
mod generations;
mod http_edges;
mod interop;
mod metrics;
mod nested_objects;
mod openapi;
mod pauses;
mod preconditions;
mod programs;
mod quiesce;
mod reboots;
mod rest;
mod restricted_agent;
mod samples;
mod shutdown;
mod socket_dir;
mod supervision;
mod tls;
mod units;
mod vmm_process;
