//! State shared by all parts of a run.

use crate::daemon::DaemonProcess;
use crate::error::SoakError;
use crate::journal::Journal;
use crate::member::{VmHandle, VmModel};
use crate::options::SoakOptions;
use crate::orders::OrderBook;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use testkit::fake_vmm::Ledger;

/// Model of all VMs, and records of the requests and answers.
#[derive(Debug)]
pub(crate) struct SoakState {
    pub(crate) members: Vec<Arc<VmModel>>,
    pub(crate) orders: OrderBook,
    pub(crate) journal: Journal,
    pub(crate) lives: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) http: reqwest::Client,
}

impl SoakState {
    pub(crate) fn next_life(&self) -> u64 {
        self.lives.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn url(path: &str) -> String {
        format!("http://minionsd{path}")
    }
}

/// Creates the guests, each with a socket, and the state of the run.
pub(crate) fn found(
    options: &SoakOptions,
    daemon: &DaemonProcess,
) -> Result<(Arc<SoakState>, Vec<VmHandle>), SoakError> {
    let ledger = Arc::new(Ledger::default());
    let lives = AtomicU64::new(options.vms as u64);
    let mut members = Vec::new();
    let mut bodies = Vec::new();
    for number in 0..options.vms {
        let body = VmHandle::start(number, daemon.vms(), Arc::clone(&ledger))
            .map_err(SoakError::io("cannot create the socket of a guest"))?;
        members.push(body.member());
        bodies.push(body);
    }
    let world = SoakState {
        members,
        orders: OrderBook::new(ledger),
        journal: Journal::default(),
        lives,
        calls: AtomicU64::new(0),
        http: daemon.http()?,
    };
    Ok((Arc::new(world), bodies))
}
