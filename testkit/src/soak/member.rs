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
    at: Instant,
    /// Answers that it had given.
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

    /// Something is done to it.
    pub(super) fn afflict(&self) {
        let mut model = self.model();
        model.faults += 1;
        model.condition = Condition::Faulty;
    }

    /// It is over.
    pub(super) fn relieve(&self) {
        self.model().condition = Condition::Recovering(Instant::now());
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

    /// A VMM listens again, with this guest behind it, in one step. The one before lives on, if it
    /// does, where nobody new finds it.
    pub(super) fn appear(&mut self, guest: Guest) -> std::io::Result<Option<FakeVmm>> {
        let vmm = FakeVmm::start(&self.spare, &self.member.name, Behaviour::Guest(guest))?;
        std::fs::rename(vmm.path(), &self.path)?;
        Ok(self.vmm.replace(vmm))
    }
}
