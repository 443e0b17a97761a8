//! `minionsctl forward VM FORWARD…`: listens on this machine, and connects each client to a target in the guest.
//!
//! Every connection is opened separately, so new connections work again after a restart of the guest. If the target
//! cannot be reached, the client's TCP connection is reset, as by a closed port.
//!
//! * [`listener`]: TCP and Unix listeners. [`connection`]: one connection.

mod connection;
mod listener;

use super::context::Context;
use crate::cli::{ForwardArgs, ForwardSpec};
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Printer;
use listener::ForwardListener;
use minions_api::vm::Vm;
use serde::Serialize;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Maximum number of connections at a time. minionsd has a limit of its own.
const MAX_CONNECTIONS: usize = 1024;

/// Line of `-o json`, one for each forward.
#[derive(Debug, Serialize)]
struct ForwardLine<'a> {
    listen: &'a str,
    target: &'a str,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: Arc<DaemonClient>,
    args: &ForwardArgs,
) -> Result<ExitStatus, Failure> {
    // Reports an unknown VM now, not at the first connection.
    let _: Vm = client.get(&vm_path(&args.vm, ""), Context::registry()).await?;
    let mut listeners = Vec::new();
    for ForwardSpec { listen, target } in &args.forwards {
        listeners.push((ForwardListener::bind(listen)?, target.to_string()));
    }
    for (listener, target) in &listeners {
        let listen = listener.to_string();
        if context.printer.is_json() {
            Printer::json_line(&ForwardLine { listen: &listen, target })?;
        } else {
            context.printer.heading(&format!("{listen} -> {} {target}", args.vm))?;
        }
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (reports, mut reported) = tokio::sync::mpsc::channel(16);
    let mut accepting = JoinSet::new();
    for (listener, target) in listeners {
        let session = connection::ForwardTo {
            client: Arc::clone(&client),
            vm: args.vm.clone(),
            target,
            reports: reports.clone(),
        };
        let places = Arc::clone(&places);
        accepting.spawn(async move { listener.serve(session, places).await });
    }
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
    let mut last_report = String::new();
    // While a guest cannot be reached, every connection fails in the same way: this is reported once.
    let mut print = |report: String| {
        if report != last_report {
            context.printer.remark(&report);
            last_report = report;
        }
    };
    let status = loop {
        tokio::select! {
            Some(ended) = accepting.join_next() => {
                let ended = ended.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
                ended.map_err(Failure::Listen)?;
            }
            Some(report) = reported.recv() => print(report),
            _ = interrupts.recv() => break ExitStatus::by_signal(2),
            _ = terminations.recv() => break ExitStatus::by_signal(15),
        }
    };
    // The reasons of connections that were reset before the signal.
    while let Ok(report) = reported.try_recv() {
        print(report);
    }
    Ok(status)
}
