//! One VM, as the model has it, and as it really is.

use crate::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest, Ledger};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Lives that are remembered.
const REMEMBERED: usize = 16;

/// After a fault the daemon may need this long to know that it is over: a connection that a reset left
/// silent shows at the next probe, 5 s and a bit later, and is in doubt until then.
const CONVALESCENCE: Duration = Duration::from_secs(20);

/// Longer than any fault lasts.
const FAULT_LIMIT: Duration = Duration::from_secs(60);

/// What the model knows of one VM.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) dialect: Dialect,
    model: Mutex<Model>,
}

#[derive(Debug)]
struct Model {
    guest: Guest,
    /// Oldest first.
    lives: VecDeque<Life>,
    condition: Condition,
    /// Faults so far.
    faults: u64,
    /// Until when the daemon may say that it is gone, or another one.
    may_be_gone_until: Option<Instant>,
    /// A reboot that must be told: the life that began, and when.
    untold: Option<(u64, Instant)>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    number: u64,
    /// From here on no earlier one may answer a call.
    alone_since: Instant,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It was not seen to be ready yet.
    New,
    /// Something is being done to it.
    Faulty,
    /// It is well, and the daemon may not know yet.
    Recovering(Instant),
    /// It is well, and the daemon has no excuse.
    Calm,
}

/// How it was when a call began.
#[derive(Debug, Clone)]
pub(super) struct Before {
    pub(super) calm: bool,
    faults: u64,
    pub(super) at: Instant,
    /// Answers that it had given.
    pub(super) answers: u64,
}

impl Member {
    fn new(name: String, dialect: Dialect, guest: Guest, life: u64) -> Self {
        let first = Life { number: life, alone_since: Instant::now() };
        let model = Model {
            guest,
            lives: VecDeque::from([first]),
            condition: Condition::New,
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

    /// To be called before the life can answer. An earlier one may still do so for a while.
    pub(super) fn begins(&self, number: u64, overlap: Duration) {
        let mut model = self.model();
        if model.lives.len() == REMEMBERED {
            model.lives.pop_front();
        }
        model.lives.push_back(Life { number, alone_since: Instant::now() + overlap });
    }

    /// Another guest has its name from now on.
    pub(super) fn succeeded_by(&self, guest: Guest) {
        self.model().guest = guest;
    }

    /// Something is done to it. Whether it was well before, and known to be.
    pub(super) fn afflict(&self) -> bool {
        let mut model = self.model();
        model.faults += 1;
        // What the next fault hides need not be told.
        model.untold = None;
        std::mem::replace(&mut model.condition, Condition::Faulty) == Condition::Calm
    }

    /// It is over.
    pub(super) fn relieve(&self) {
        let mut model = self.model();
        model.condition = Condition::Recovering(Instant::now());
        if model.may_be_gone_until.is_some_and(|until| until > Instant::now()) {
            model.may_be_gone_until = Some(Instant::now() + CONVALESCENCE);
        }
    }

    /// Its VMM ends, or another VM takes its name.
    pub(super) fn may_be_gone(&self) {
        self.model().may_be_gone_until = Some(Instant::now() + FAULT_LIMIT);
    }

    /// Whether the daemon may say now of something since `since` that it is gone, or another one.
    pub(super) fn may_have_been_gone(&self, since: Instant) -> bool {
        let model = self.model();
        model.condition == Condition::New
            || model.may_be_gone_until.is_some_and(|until| until >= since)
    }

    /// The daemon must tell that it booted again.
    pub(super) fn must_be_told(&self, life: u64) {
        self.model().untold = Some((life, Instant::now()));
    }

    /// The daemon tells that it booted again: as which life, if that is known.
    pub(super) fn told(&self, life: Option<u64>) {
        let mut model = self.model();
        if let Some((untold, _)) = model.untold
            && life.is_none_or(|life| life == untold)
        {
            model.untold = None;
        }
    }

    /// Events are missing: nothing need be told any more.
    pub(super) fn excuse(&self) {
        self.model().untold = None;
    }

    /// A reboot that was not told for so long.
    pub(super) fn untold_for(&self, patience: Duration) -> Option<u64> {
        let mut model = self.model();
        let (life, since) = model.untold?;
        let is_over = since.elapsed() > patience;
        is_over.then(|| {
            model.untold = None;
            life
        })
    }

    /// Whether it had this life.
    pub(super) fn knows(&self, life: u64) -> bool {
        self.model().lives.iter().any(|known| known.number == life)
    }

    pub(super) fn condition(&self) -> Condition {
        self.model().condition
    }

    /// The daemon says that it is ready.
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

    /// To be asked before a call is made.
    pub(super) fn before(&self) -> Before {
        let model = self.model();
        Before {
            calm: model.condition == Condition::Calm,
            faults: model.faults,
            at: Instant::now(),
            answers: model.guest.answers(),
        }
    }

    /// Whether nothing was done to it from then on.
    pub(super) fn was_calm(&self, before: &Before) -> bool {
        before.calm && self.model().faults == before.faults
    }

    /// Whether this life may answer a call that began then and ends now.
    pub(super) fn may_answer(&self, life: u64, before: &Before) -> bool {
        let model = self.model();
        let oldest = model.lives.iter().rev().find(|life| life.alone_since <= before.at);
        model.lives.iter().any(|known| known.number == life)
            && oldest.is_none_or(|oldest| life >= oldest.number)
    }
}

/// The socket and what listens on it. Whoever holds it does something to the VM.
#[derive(Debug)]
pub(super) struct Body {
    member: Arc<Member>,
    path: PathBuf,
    spare: PathBuf,
    vmm: Option<FakeVmm>,
}

impl Body {
    /// The VM of this number, alive. Every fourth speaks the base protocol only.
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

    pub(super) fn vmm_mut(&mut self) -> Option<&mut FakeVmm> {
        self.vmm.as_mut()
    }

    /// Behaves like this; connections break.
    pub(super) fn switch_to(&self, behaviour: Behaviour) {
        if let Some(vmm) = &self.vmm {
            vmm.switch_to(behaviour);
        }
    }

    /// The VMM is killed; its file stays.
    pub(super) fn die(&mut self) {
        if let Some(vmm) = self.vmm.take() {
            vmm.crash();
        }
    }

    /// The VMM ends as it should: the file goes.
    pub(super) fn vanish(&mut self) -> std::io::Result<()> {
        self.die();
        std::fs::remove_file(&self.path)
    }

    /// A VMM, another process, listens again, in one step. The one before lives on, if it does, where
    /// nobody new finds it.
    pub(super) fn appear(&mut self, behaviour: Behaviour) -> std::io::Result<Option<FakeVmm>> {
        let mut vmm = FakeVmm::start_as(&self.spare, &self.member.name, behaviour, "vmm")?;
        vmm.rename_socket(&self.path)?;
        Ok(self.vmm.replace(vmm))
    }
}
