//! What happens to VMs, for whoever wants to follow it.
//!
//! ```text
//!  supervisors ──▶ ring of the last 4096 ◀── each reader has a place of its own in it
//! ```
//!
//! Nobody is written to: readers come and take, at their own speed. One that is slower than the ring is
//! told how much it missed, and holds nothing up.

use minions_api::VmName;
use minions_api::event::{Event, Reset};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Events that are kept. An event has at most some hundred bytes of the guest's, so 4 MiB at the worst.
const KEPT: usize = 4096;

/// Readers of each kind at once.
pub(crate) const MAX_READERS: usize = 64;

/// Kinds of readers, each with places of its own: those whom every user of the host can be cannot keep the
/// others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// Operates, over whatever listener.
    Operator,
    /// Only reads, over the Unix socket.
    Unix,
    /// Only reads, over TCP.
    Tcp,
}

/// Places of all readers.
#[derive(Debug)]
struct ReaderPlaces {
    operators: Arc<Semaphore>,
    unix: Arc<Semaphore>,
    tcp: Arc<Semaphore>,
}

impl ReaderPlaces {
    fn new() -> Self {
        let places = || Arc::new(Semaphore::new(MAX_READERS));
        Self { operators: places(), unix: places(), tcp: places() }
    }

    fn take(&self, kind: ReaderKind) -> Option<OwnedSemaphorePermit> {
        let places = match kind {
            ReaderKind::Operator => &self.operators,
            ReaderKind::Unix => &self.unix,
            ReaderKind::Tcp => &self.tcp,
        };
        Arc::clone(places).try_acquire_owned().ok()
    }

    fn taken(&self) -> usize {
        let all = [&self.operators, &self.unix, &self.tcp];
        all.map(|places| MAX_READERS.saturating_sub(places.available_permits())).iter().sum()
    }
}

/// An event's place in this daemon's history, as text `<run>-<number>`: ids of another run are
/// recognised, and lead nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventId {
    run: u64,
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.run, self.number)
    }
}

/// Not an event's id.
#[derive(Debug, thiserror::Error)]
#[error("not an id that GET /events gave out")]
pub(crate) struct NotAnId;

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (run, number) = text.split_once('-').ok_or(NotAnId)?;
        let run = u64::from_str_radix(run, 16).map_err(|_| NotAnId)?;
        Ok(Self { run, number: number.parse().map_err(|_| NotAnId)? })
    }
}

/// The history. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    run: u64,
    ring: Mutex<Ring>,
    /// The number of the next event: tells readers that there is something.
    next: watch::Sender<u64>,
    readers: ReaderPlaces,
    missed: AtomicU64,
}

#[derive(Debug)]
struct Ring {
    kept: VecDeque<Arc<Event>>,
    next: u64,
}

impl Ring {
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn get(&self, number: u64) -> Option<Arc<Event>> {
        let index = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.kept.get(index).cloned()
    }
}

impl Events {
    /// An empty one.
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(Shared {
            run: since.as_micros().try_into().unwrap_or(u64::MAX),
            ring: Mutex::new(Ring { kept: VecDeque::new(), next: 1 }),
            next: watch::Sender::new(1),
            readers: ReaderPlaces::new(),
            missed: AtomicU64::new(0),
        }))
    }

    /// It happened.
    pub(crate) fn publish(&self, event: Event) {
        let next = {
            let mut ring = self.0.ring();
            ring.kept.push_back(Arc::new(event));
            if ring.kept.len() > KEPT {
                ring.kept.pop_front();
            }
            ring.next += 1;
            ring.next
        };
        // Two at once may come here in the wrong order.
        self.0.next.send_if_modified(|told| std::mem::replace(told, next.max(*told)) < next);
    }

    /// Reads on behind `last`, or what happens from now on; only what happens to `vm`, if that is
    /// given. `None` if there are too many readers of this kind.
    pub(crate) fn reader(
        &self,
        kind: ReaderKind,
        last: Option<EventId>,
        vm: Option<VmName>,
    ) -> Option<Reader> {
        let place = self.0.readers.take(kind)?;
        let next = self.0.ring().next;
        let (at, lost) = match last {
            None => (next, false),
            Some(EventId { run, number }) if run == self.0.run && number < next => {
                (number + 1, false)
            }
            Some(_) => (next, true),
        };
        let told = self.0.next.subscribe();
        Some(Reader { events: self.clone(), at, lost, vm, told, _place: place })
    }

    /// Events so far, those that readers missed, and readers.
    pub(crate) fn figures(&self) -> (u64, u64, usize) {
        let missed = self.0.missed.load(Ordering::Relaxed);
        (self.0.ring().next - 1, missed, self.0.readers.taken())
    }
}

impl Shared {
    /// Held for a push or a look.
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reader comes to next.
#[derive(Debug, Clone)]
pub(crate) enum Read {
    /// An event.
    Event(Arc<Event>),
    /// A hole.
    Reset(Reset),
}

/// One who reads.
#[derive(Debug)]
pub(crate) struct Reader {
    events: Events,
    /// The number of the event to read next.
    at: u64,
    /// What it has read before was another daemon's.
    lost: bool,
    vm: Option<VmName>,
    told: watch::Receiver<u64>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// The id of the last thing that was read: where to come back to.
    pub(crate) fn last(&self) -> EventId {
        EventId { run: self.events.0.run, number: self.at - 1 }
    }

    /// What comes next; waits for it.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Read {
        loop {
            if let Some(read) = self.look() {
                return read;
            }
            // We keep the sender alive ourselves.
            let _ = self.told.changed().await;
        }
    }

    fn look(&mut self) -> Option<Read> {
        if std::mem::take(&mut self.lost) {
            return Some(Read::Reset(Reset { missed: None }));
        }
        self.told.mark_unchanged();
        let ring = self.events.0.ring();
        let missed = ring.oldest().saturating_sub(self.at);
        if missed > 0 {
            self.at = ring.oldest();
            self.events.0.missed.fetch_add(missed, Ordering::Relaxed);
            return Some(Read::Reset(Reset { missed: Some(missed) }));
        }
        while let Some(event) = ring.get(self.at) {
            self.at += 1;
            if self.vm.as_ref().is_none_or(|vm| *vm == event.vm) {
                return Some(Read::Event(event));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use minions_api::Timestamp;
    use minions_api::event::EventKind;
    use minions_api::vm::Incarnation;

    fn event(vm: &str) -> Event {
        Event {
            kind: EventKind::VmFound,
            at: Timestamp::now(),
            vm: vm.parse().unwrap(),
            state: None,
            before: None,
            cause: None,
            reason: None,
            incarnation: Incarnation::default(),
        }
    }

    fn read(reader: &mut Reader) -> Option<String> {
        match reader.next().now_or_never()? {
            Read::Event(event) => Some(event.vm.to_string()),
            Read::Reset(reset) => Some(format!("{:?}", reset.missed)),
        }
    }

    #[test]
    fn a_reader_reads_what_happens_from_its_coming_on() {
        let events = Events::new();
        events.publish(event("before"));
        let mut reader = events.reader(ReaderKind::Tcp, None, None).unwrap();
        assert_eq!(read(&mut reader), None);
        events.publish(event("a"));
        events.publish(event("b"));
        assert_eq!(read(&mut reader).as_deref(), Some("a"));
        assert_eq!(read(&mut reader).as_deref(), Some("b"));
        assert_eq!(read(&mut reader), None);
    }

    #[test]
    fn one_who_comes_back_misses_nothing_and_gets_nothing_twice() {
        let events = Events::new();
        let mut reader = events.reader(ReaderKind::Tcp, None, None).unwrap();
        (0..3).for_each(|n| events.publish(event(&format!("vm-{n}"))));
        assert_eq!(read(&mut reader).as_deref(), Some("vm-0"));
        let last: EventId = reader.last().to_string().parse().unwrap();
        let mut again = events.reader(ReaderKind::Tcp, Some(last), None).unwrap();
        assert_eq!(read(&mut again).as_deref(), Some("vm-1"));
        assert_eq!(read(&mut again).as_deref(), Some("vm-2"));
        assert_eq!(read(&mut again), None);
    }

    #[test]
    fn a_slow_reader_is_told_how_much_it_missed_and_holds_nobody_up() {
        let events = Events::new();
        let mut reader = events.reader(ReaderKind::Tcp, None, None).unwrap();
        (0..KEPT + 5).for_each(|n| events.publish(event(&format!("vm-{n}"))));
        assert_eq!(read(&mut reader).as_deref(), Some("Some(5)"));
        assert_eq!(read(&mut reader).as_deref(), Some("vm-5"));
        assert_eq!(events.figures(), (KEPT as u64 + 5, 5, 1));
    }

    #[test]
    fn an_id_of_another_run_or_from_the_future_is_a_reset() {
        let events = Events::new();
        events.publish(event("a"));
        for id in [EventId { run: 1, number: 1 }, EventId { run: events.0.run, number: 99 }] {
            let mut reader = events.reader(ReaderKind::Tcp, Some(id), None).unwrap();
            assert_eq!(read(&mut reader).as_deref(), Some("None"), "{id}");
            assert_eq!(read(&mut reader), None, "{id}");
        }
    }

    #[test]
    fn a_filter_lets_one_vm_through_and_its_ids_still_count_all() {
        let events = Events::new();
        let mut reader = events.reader(ReaderKind::Tcp, None, "b".parse().ok()).unwrap();
        ["a", "b", "c"].into_iter().for_each(|vm| events.publish(event(vm)));
        assert_eq!(read(&mut reader).as_deref(), Some("b"));
        assert_eq!(read(&mut reader), None);
        assert_eq!(reader.last().number, 3);
    }

    #[test]
    fn there_are_only_so_many_readers_of_each_kind() {
        let events = Events::new();
        let reader = |kind| events.reader(kind, None, None);
        let kinds = [ReaderKind::Tcp, ReaderKind::Unix, ReaderKind::Operator];
        let mut readers: Vec<_> =
            kinds.iter().flat_map(|kind| (0..MAX_READERS).map(|_| reader(*kind))).collect();
        assert!(readers.iter().all(Option::is_some));
        assert!(kinds.iter().all(|kind| reader(*kind).is_none()));
        assert_eq!(events.figures().2, 3 * MAX_READERS);
        readers.pop();
        assert!(reader(ReaderKind::Tcp).is_none());
        assert!(reader(ReaderKind::Operator).is_some());
    }
}
