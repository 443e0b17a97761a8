//! `minionsctl forward VM FORWARD…`: listens on this machine, and connects each client to a target in the guest; with
//! `-R`, listens in the guest, and connects each client to a target on this machine.
//!
//! Every connection is opened separately, so new connections work again after a restart of the guest; a listener in the
//! guest is opened again. If the target cannot be reached, the client's TCP connection is reset, as by a closed port.
//!
//! * [`listener`]: TCP and Unix listeners on this machine. [`connection`]: one of their connections. [`reverse`]: one
//!   connection of a listener in the guest. `guest_relay` moves the bytes of either.

mod connection;
mod listener;
mod reverse;

use super::context::Context;
use crate::cli::{ForwardArgs, ForwardSpec, ReverseSpec};
use crate::client::{DaemonClient, vm_path};
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::guest_listener::GuestListener;
use connection::ForwardTo;
use listener::ForwardListener;
use minions_api::forward::ForwardAddress;
use minions_api::service::{Scope, Whoami};
use minions_api::vm::Vm;
use reverse::ReverseForward;
use serde::Serialize;
use serde_json::Value;
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

/// Maximum number of connections to the guest at a time. minionsd has a limit of its own.
const MAX_CONNECTIONS: usize = 1024;

/// Maximum number of connections from the guest at a time, below the limit of minionsd. Further ones wait in the guest.
const MAX_FROM_GUEST: usize = 120;

/// Line of `-o json`, one for each forward.
#[derive(Debug, Serialize)]
struct ForwardLine<'a> {
    listen: &'a str,
    target: &'a str,
    /// True if the listener is in the guest.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    reverse: bool,
}

/// Listeners of one command.
struct OpenForwards {
    here: Vec<(ForwardListener, String)>,
    in_guest: Vec<(GuestListener, ReverseForward)>,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: Arc<DaemonClient>,
    args: &ForwardArgs,
) -> Result<ExitStatus, Failure> {
    // Reports an unknown VM now, not at the first connection.
    let _: Vm = client.get(&vm_path(&args.vm, ""), Context::registry()).await?;
    refused(&client, args).await?;
    let (reports, reported) = mpsc::channel(16);
    let forwards = open(&client, args, &reports).await?;
    print(context, args, &forwards)?;
    serve(context, forwards, &client, args, reports, reported).await
}

/// Reports a caller who may not forward now, not at the first connection.
async fn refused(client: &DaemonClient, args: &ForwardArgs) -> Result<(), Failure> {
    let whoami: Whoami = client.get("/whoami", Context::registry()).await?;
    if whoami.scopes.contains(&Scope::Operate) {
        return Ok(());
    }
    // Refused before anything else is checked, with the ways to get the scope.
    let path = vm_path(&args.vm, "/forward?target=tcp:localhost:1");
    client.get(&path, Context::registry()).await.map(|_: Value| ())
}

/// Opens all listeners, or none.
async fn open(
    client: &Arc<DaemonClient>,
    args: &ForwardArgs,
    reports: &mpsc::Sender<String>,
) -> Result<OpenForwards, Failure> {
    let (mut here, mut in_guest) = (Vec::new(), Vec::new());
    for ForwardSpec { listen, target } in args.forwards.iter().chain(&args.local) {
        here.push((ForwardListener::bind(listen)?, target.to_string()));
    }
    for ReverseSpec { listen, target } in &args.remote {
        let is_tcp = matches!(listen, ForwardAddress::Tcp(_) | ForwardAddress::Localhost(_));
        let owner = args.owner.clone().filter(|_| !is_tcp);
        let (client, vm) = (Arc::clone(client), args.vm.clone());
        let server = ReverseForward {
            client: Arc::clone(&client),
            vm: vm.clone(),
            target: target.clone(),
            reports: reports.clone(),
        };
        in_guest.push((GuestListener::open(client, vm, listen, owner).await?, server));
    }
    Ok(OpenForwards { here, in_guest })
}

fn print(
    context: &Context<'_>,
    args: &ForwardArgs,
    forwards: &OpenForwards,
) -> Result<(), Failure> {
    for (listener, target) in &forwards.here {
        let listen = listener.to_string();
        if context.printer.is_structured() {
            context.printer.json_line(&ForwardLine { listen: &listen, target, reverse: false })?;
        } else {
            context.printer.heading(&format!("{listen} -> {} {target}", args.vm))?;
        }
    }
    for (listener, server) in &forwards.in_guest {
        // The same form as that of a listener on this machine: without `tcp:` or `unix:`.
        let address = listener.address().to_string();
        let listen = address.split_once(':').map_or(&*address, |(_, listen)| listen);
        let target = server.target.to_string();
        if context.printer.is_structured() {
            context.printer.json_line(&ForwardLine { listen, target: &target, reverse: true })?;
        } else {
            context.printer.heading(&format!("{} {listen} -> {target}", args.vm))?;
        }
    }
    Ok(())
}

/// Serves all connections until a signal arrives or a listener on this machine fails.
async fn serve(
    context: &Context<'_>,
    forwards: OpenForwards,
    client: &Arc<DaemonClient>,
    args: &ForwardArgs,
    reports: mpsc::Sender<String>,
    mut reported: mpsc::Receiver<String>,
) -> Result<ExitStatus, Failure> {
    let mut interrupts = signal(SignalKind::interrupt()).map_err(Failure::Runtime)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(Failure::Runtime)?;
    let mut accepting = JoinSet::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for (listener, target) in forwards.here {
        let (client, vm) = (Arc::clone(client), args.vm.clone());
        let session = ForwardTo { client, vm, target, reports: reports.clone() };
        let places = Arc::clone(&places);
        accepting.spawn(async move { listener.serve(session, places).await });
    }
    let places = Arc::new(Semaphore::new(MAX_FROM_GUEST));
    for (listener, server) in forwards.in_guest {
        let places = Arc::clone(&places);
        accepting.spawn(async move {
            listener.run(server, places, TaskTracker::new()).await;
            Ok(())
        });
    }
    let mut last_report = String::new();
    let mut report = |report: String| {
        // While a target cannot be reached, every connection fails in the same way: this is reported once.
        if report != last_report {
            context.printer.remark(&report);
            last_report = report;
        }
    };
    let status = loop {
        tokio::select! {
            Some(ended) = accepting.join_next() => {
                let ended = ended.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
                ended.map_err(Failure::Listen)?;
            }
            Some(message) = reported.recv() => report(message),
            _ = interrupts.recv() => break ExitStatus::by_signal(2),
            _ = terminations.recv() => break ExitStatus::by_signal(15),
        }
    };
    while let Ok(message) = reported.try_recv() {
        report(message);
    }
    Ok(status)
}
