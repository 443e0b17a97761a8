//! A VM: its model, and the fake VM itself.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, Ledger};
use tokio::time::Instant;

/// Number of lives that a model remembers.
const REMEMBERED: usize = 16;

/// Time after a fault during which the daemon may not know yet that the fault is over: it detects a connection that a
/// reset left silent at the next probe, after about 5 s.
const CONVALESCENCE: Duration = Duration::from_secs(20);

/// Time that is longer than any fault.
const FAULT_LIMIT: Duration = Duration::from_secs(60);

/// Model of one VM.
#[derive(Debug)]
pub(super) struct VmModel {
    pub(super) name: String,
    pub(super) dialect: Dialect,
    model: Mutex<Model>,
}

#[derive(Debug)]
struct Model {
    guest: Guest,
    /// Lives of the VM, oldest first.
    lives: VecDeque<GuestLife>,
    condition: VmCondition,
    /// Number of faults so far.
    faults: u64,
    /// End of the time in which the daemon may report the VM as gone or replaced.
    may_be_gone_until: Option<Instant>,
    /// Life whose boot the daemon must still report, and the start of that life.
    untold: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct GuestLife {
    number: u64,
    /// Time from which on no earlier life may answer a call.
    alone_since: Instant,
}

/// Condition of a VM in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VmCondition {
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
pub(super) struct CallStart {
    pub(super) calm: bool,
    faults: u64,
    pub(super) at: Instant,
    /// Number of answers that the VM had given.
    pub(super) answers: u64,
}

impl VmModel {
    fn new(name: String, dialect: Dialect, guest: Guest, life: u64) -> Self {
        let first = GuestLife { number: life, alone_since: Instant::now() };
        let model = Model {
            guest,
            lives: VecDeque::from([first]),
            condition: VmCondition::New,
            faults: 0,
            may_be_gone_until: None,
            untold: None,
        };
        Self { name, dialect, model: Mutex::new(model) }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn guest(&self) -> Guest {
        self.model().guest.clone()
    }

    /// Records a new life. Must be called before that life can answer. The previous life may answer for `overlap`.
    pub(super) fn begins(&self, number: u64, overlap: Duration) {
        let mut model = self.model();
        if model.lives.len() == REMEMBERED {
            model.lives.pop_front();
        }
        model.lives.push_back(GuestLife { number, alone_since: Instant::now() + overlap });
    }

    /// Records that another guest takes the name now.
    pub(super) fn succeeded_by(&self, guest: Guest) {
        self.model().guest = guest;
    }

    /// Records the start of a fault. Returns true if the VM was healthy before.
    pub(super) fn afflict(&self) -> bool {
        let mut model = self.model();
        model.faults += 1;
        // The next fault may hide the boot that is not reported yet.
        model.untold = None;
        std::mem::replace(&mut model.condition, VmCondition::Faulty) == VmCondition::Calm
    }

    /// Records the end of a fault.
    pub(super) fn relieve(&self) {
        let mut model = self.model();
        model.condition = VmCondition::Recovering(Instant::now());
        if model.may_be_gone_until.is_some_and(|until| until > Instant::now()) {
            model.may_be_gone_until = Some(Instant::now() + CONVALESCENCE);
        }
    }

    /// Records that the VMM ends, or that another VM takes the name.
    pub(super) fn may_be_gone(&self) {
        self.model().may_be_gone_until = Some(Instant::now() + FAULT_LIMIT);
    }

    /// Reports whether the VM may have been gone, or another VM, at any time since `since`.
    pub(super) fn may_have_been_gone(&self, since: Instant) -> bool {
        let model = self.model();
        model.condition == VmCondition::New
            || model.may_be_gone_until.is_some_and(|until| until >= since)
    }

    /// Records that the daemon must report the boot with this life.
    pub(super) fn must_be_told(&self, life: u64) {
        self.model().untold = Some((life, Instant::now()));
    }

    /// Records that the daemon reported a reboot, with the life if it is known.
    pub(super) fn told(&self, life: Option<u64>) {
        let mut model = self.model();
        if let Some((untold, _)) = model.untold
            && life.is_none_or(|life| life == untold)
        {
            model.untold = None;
        }
    }

    /// Records that events are missing, so a reboot need not be reported any more.
    pub(super) fn excuse(&self) {
        self.model().untold = None;
    }

    /// Returns the life whose boot has not been reported within `patience`.
    pub(super) fn untold_for(&self, patience: Duration) -> Option<u64> {
        let mut model = self.model();
        let (life, since) = model.untold?;
        let is_over = since.elapsed() > patience;
        is_over.then(|| {
            model.untold = None;
            life
        })
    }

    /// Reports whether the VM had this life.
    pub(super) fn knows(&self, life: u64) -> bool {
        self.model().lives.iter().any(|known| known.number == life)
    }

    pub(super) fn condition(&self) -> VmCondition {
        self.model().condition
    }

    /// Records that the daemon reports the VM as ready.
    pub(super) fn seen_ready(&self) {
        let mut model = self.model();
        match model.condition {
            VmCondition::New => model.condition = VmCondition::Calm,
            VmCondition::Recovering(since) if since.elapsed() > CONVALESCENCE => {
                model.condition = VmCondition::Calm;
            }
            VmCondition::Recovering(_) | VmCondition::Faulty | VmCondition::Calm => {}
        }
    }

    /// Returns the current condition. Must be called before a request is sent.
    pub(super) fn before(&self) -> CallStart {
        let model = self.model();
        CallStart {
            calm: model.condition == VmCondition::Calm,
            faults: model.faults,
            at: Instant::now(),
            answers: model.guest.answers(),
        }
    }

    /// Reports whether the VM was calm at `before`, and no fault has been injected since.
    pub(super) fn was_calm(&self, before: &CallStart) -> bool {
        before.calm && self.model().faults == before.faults
    }

    /// Reports whether this life may answer a call that began at `before` and ends now.
    pub(super) fn may_answer(&self, life: u64, before: &CallStart) -> bool {
        let model = self.model();
        let oldest = model.lives.iter().rev().find(|life| life.alone_since <= before.at);
        model.lives.iter().any(|known| known.number == life)
            && oldest.is_none_or(|oldest| life >= oldest.number)
    }
}

/// Socket of a VM and the fake that listens on it, for the injection of faults.
#[derive(Debug)]
pub(super) struct VmHandle {
    member: Arc<VmModel>,
    path: PathBuf,
    spare: PathBuf,
    vmm: Option<FakeVmm>,
}

impl VmHandle {
    /// Starts the VM with this number. Every fourth VM implements only the base protocol.
    pub(super) fn start(number: usize, dir: &Path, ledger: Arc<Ledger>) -> std::io::Result<Self> {
        let name = format!("vm-{number:03}");
        let dialect = if number % 4 == 3 { Dialect::Base } else { Dialect::Objects };
        let life = number as u64 + 1;
        let guest = Guest::new(&name, dialect, life, ledger);
        let vmm = FakeVmm::start(dir, &name, Behaviour::Guest(guest.clone()))?;
        let spare = dir.with_file_name("spare");
        std::fs::create_dir_all(&spare)?;
        let member = Arc::new(VmModel::new(name, dialect, guest, life));
        Ok(Self { member, path: vmm.path().to_owned(), spare, vmm: Some(vmm) })
    }

    pub(super) fn member(&self) -> Arc<VmModel> {
        Arc::clone(&self.member)
    }

    pub(super) fn vmm(&self) -> Option<&FakeVmm> {
        self.vmm.as_ref()
    }

    pub(super) fn vmm_mut(&mut self) -> Option<&mut FakeVmm> {
        self.vmm.as_mut()
    }

    /// Changes the behaviour of the VMM, and breaks its connections.
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

    /// Ends the VMM regularly: the socket file is removed.
    pub(super) fn vanish(&mut self) -> std::io::Result<()> {
        self.die();
        std::fs::remove_file(&self.path)
    }

    /// Starts a VMM with a process of its own, and renames its socket into place in one step. Returns the previous
    /// VMM, if it still runs; new clients no longer reach it.
    pub(super) fn appear(&mut self, behaviour: Behaviour) -> std::io::Result<Option<FakeVmm>> {
        let mut vmm = FakeVmm::start_as(&self.spare, &self.member.name, behaviour, "vmm")?;
        vmm.rename_socket(&self.path)?;
        Ok(self.vmm.replace(vmm))
    }
}
