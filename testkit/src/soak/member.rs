//! A VM: the model of it, and the fake itself.

use crate::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, Ledger};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Number of lives that are remembered.
const REMEMBERED: usize = 16;

/// Time after a fault in which the daemon may not know yet that it is over: a connection that a reset left
/// silent is noticed at the next probe, after 5 s and a little more, and is in doubt until then.
const CONVALESCENCE: Duration = Duration::from_secs(20);

/// Model of one VM.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) dialect: Dialect,
    model: Mutex<Model>,
}

#[derive(Debug)]
struct Model {
    guest: Guest,
    /// Lives of the VM, oldest first.
    lives: VecDeque<Life>,
    condition: Condition,
    /// Number of faults so far.
    faults: u64,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    number: u64,
    /// Time after which no earlier life may answer a call.
    alone_since: Instant,
}

/// Condition of a VM in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// The VM has not been seen as ready yet.
    New,
    /// A fault is being injected.
    Faulty,
    /// The fault is over, but the daemon may not know it yet.
    Recovering(Instant),
    /// The VM is healthy, and every failure is a violation.
    Calm,
}

/// Condition of a VM at the start of a call.
#[derive(Debug, Clone)]
pub(super) struct Before {
    pub(super) calm: bool,
    faults: u64,
    at: Instant,
    /// Number of answers that the VM had given.
    pub(super) answers: u64,
}

impl Member {
    fn new(name: String, dialect: Dialect, guest: Guest, life: u64) -> Self {
        let first = Life { number: life, alone_since: Instant::now() };
        let model =
            Model { guest, lives: VecDeque::from([first]), condition: Condition::New, faults: 0 };
        Self { name, dialect, model: Mutex::new(model) }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn guest(&self) -> Guest {
        self.model().guest.clone()
    }

    /// Records a new life; to be called before it can answer. The previous life may still answer for `overlap`.
    pub(super) fn begins(&self, number: u64, overlap: Duration) {
        let mut model = self.model();
        if model.lives.len() == REMEMBERED {
            model.lives.pop_front();
        }
        model.lives.push_back(Life { number, alone_since: Instant::now() + overlap });
    }

    /// Records that another guest has the name from now on.
    pub(super) fn succeeded_by(&self, guest: Guest) {
        self.model().guest = guest;
    }

    /// Records the start of a fault.
    pub(super) fn afflict(&self) {
        let mut model = self.model();
        model.faults += 1;
        model.condition = Condition::Faulty;
    }

    /// Records the end of a fault.
    pub(super) fn relieve(&self) {
        self.model().condition = Condition::Recovering(Instant::now());
    }

    pub(super) fn condition(&self) -> Condition {
        self.model().condition
    }

    /// Records that the daemon reports the VM as ready.
    pub(super) fn seen_ready(&self) {
        let mut model = self.model();
        match model.condition {
            Condition::New => model.condition = Condition::Calm,
            Condition::Recovering(since) if since.elapsed() > CONVALESCENCE => {
                model.condition = Condition::Calm;
            }
            Condition::Recovering(_) | Condition::Faulty | Condition::Calm => {}
        }
    }

    /// Returns the current condition; to be called before a request is sent.
    pub(super) fn before(&self) -> Before {
        let model = self.model();
        Before {
            calm: model.condition == Condition::Calm,
            faults: model.faults,
            at: Instant::now(),
            answers: model.guest.answers(),
        }
    }

    /// Reports whether the VM was calm at `before`, and no fault was injected since.
    pub(super) fn was_calm(&self, before: &Before) -> bool {
        before.calm && self.model().faults == before.faults
    }

    /// Reports whether this life may answer a call that began at `before` and ends now.
    pub(super) fn may_answer(&self, life: u64, before: &Before) -> bool {
        let model = self.model();
        let oldest = model.lives.iter().rev().find(|life| life.alone_since <= before.at);
        model.lives.iter().any(|known| known.number == life)
            && oldest.is_none_or(|oldest| life >= oldest.number)
    }
}

/// Socket of a VM and the fake that listens on it. Its holder injects the faults.
#[derive(Debug)]
pub(super) struct Body {
    member: Arc<Member>,
    path: PathBuf,
    spare: PathBuf,
    vmm: Option<FakeVmm>,
}

impl Body {
    /// Starts the VM with this number. Every fourth VM implements the base protocol only.
    pub(super) fn start(number: usize, dir: &Path, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let name = format!("vm-{number:03}");
        let dialect = if number % 4 == 3 { Dialect::Base } else { Dialect::Objects };
        let life = number as u64 + 1;
        let guest = Guest::new(&name, dialect, life, ledger);
        let vmm = FakeVmm::start(dir, &name, Behaviour::Guest(guest.clone()))?;
        let spare = dir.with_file_name("spare");
        std::fs::create_dir_all(&spare)?;
        let member = Arc::new(Member::new(name, dialect, guest, life));
        Ok(Self { member, path: vmm.path().to_owned(), spare, vmm: Some(vmm) })
    }

    pub(super) fn member(&self) -> Arc<Member> {
        Arc::clone(&self.member)
    }

    pub(super) fn vmm(&self) -> Option<&FakeVmm> {
        self.vmm.as_ref()
    }

    /// Changes the behaviour; connections break.
    pub(super) fn switch_to(&self, behaviour: Behaviour) {
        if let Some(vmm) = &self.vmm {
            vmm.switch_to(behaviour);
        }
    }

    /// Kills the VMM; its socket file remains.
    pub(super) fn die(&mut self) {
        if let Some(vmm) = self.vmm.take() {
            vmm.crash();
        }
    }

    /// Ends the VMM in order: the socket file is removed.
    pub(super) fn vanish(&mut self) -> std::io::Result<()> {
        self.die();
        std::fs::remove_file(&self.path)
    }

    /// Starts a VMM with this guest, and renames its socket into place in one step. Returns the previous VMM,
    /// if it still runs; new clients no longer reach it.
    pub(super) fn appear(&mut self, guest: Guest) -> std::io::Result<Option<FakeVmm>> {
        let vmm = FakeVmm::start(&self.spare, &self.member.name, Behaviour::Guest(guest))?;
        std::fs::rename(vmm.path(), &self.path)?;
        Ok(self.vmm.replace(vmm))
    }
}
