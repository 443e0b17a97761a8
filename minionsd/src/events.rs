//! The history of VM events.
//!
//! ```text
//!  supervisors ──▶ ring of the last 4096 events ◀── readers, each with its own position
//! ```
//!
//! Events are pulled, not pushed: each reader reads at its own speed. A reader that is too slow for the ring is told how
//! many events it missed, and delays nothing else.

use minions_api::VmName;
use minions_api::event::{Event, Reset};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Number of events that are kept. An event contains at most some hundred bytes from the guest, so the ring needs at
/// most about 4 MiB.
const KEPT: usize = 4096;

/// Maximum number of concurrent readers of each kind.
pub(crate) const MAX_READERS: usize = 64;

/// Kind of a reader. Each kind has a separate limit, so that the kinds open to every user of the host cannot block the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReaderKind {
    /// A caller that may operate, over any listener.
    Operator,
    /// A caller that may only read, over the Unix socket.
    Unix,
    /// A caller that may only read, over TCP.
    Tcp,
}

/// Reader slots by kind.
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

/// Position of an event in the history of one run of the daemon; as text `<run>-<number>`. An id of another run is
/// recognized and causes a reset.
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

/// A text that is not an event id.
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

/// The history. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EventHistory(Arc<HistoryState>);

#[derive(Debug)]
struct HistoryState {
    run: u64,
    ring: Mutex<EventRing>,
    /// Number of the next event; wakes readers when it changes.
    next: watch::Sender<u64>,
    readers: ReaderPlaces,
    missed: AtomicU64,
}

#[derive(Debug)]
struct EventRing {
    kept: VecDeque<Arc<Event>>,
    next: u64,
}

impl EventRing {
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    fn get(&self, number: u64) -> Option<Arc<Event>> {
        let index = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        self.kept.get(index).cloned()
    }
}

impl EventHistory {
    /// Creates an empty history.
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Arc::new(HistoryState {
            run: since.as_micros().try_into().unwrap_or(u64::MAX),
            ring: Mutex::new(EventRing { kept: VecDeque::new(), next: 1 }),
            next: watch::Sender::new(1),
            readers: ReaderPlaces::new(),
            missed: AtomicU64::new(0),
        }))
    }

    /// Appends an event and wakes the readers.
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
        // Two concurrent calls may reach this line in the wrong order.
        self.0.next.send_if_modified(|sent| std::mem::replace(sent, next.max(*sent)) < next);
    }

    /// Returns a reader of the events after `last`, or of future events if `last` is `None`; only events of `vm`, if
    /// that is given. Returns `None` if there are too many readers of this kind.
    pub(crate) fn reader(
        &self,
        kind: ReaderKind,
        last: Option<EventId>,
        vm: Option<VmName>,
    ) -> Option<EventReader> {
        let place = self.0.readers.take(kind)?;
        let next = self.0.ring().next;
        let (at, lost) = match last {
            None => (next, false),
            Some(EventId { run, number }) if run == self.0.run && number < next => {
                (number + 1, false)
            }
            Some(_) => (next, true),
        };
        let published = self.0.next.subscribe();
        Some(EventReader { events: self.clone(), at, lost, vm, published, _place: Some(place) })
    }

    /// Returns a reader of future events for a task of the daemon.
    pub(crate) fn follow(&self) -> EventReader {
        let published = self.0.next.subscribe();
        let at = self.0.ring().next;
        EventReader { events: self.clone(), at, lost: false, vm: None, published, _place: None }
    }

    /// Returns the number of events so far, the number that readers missed, and the number of readers.
    pub(crate) fn figures(&self) -> (u64, u64, usize) {
        let missed = self.0.missed.load(Ordering::Relaxed);
        (self.0.ring().next - 1, missed, self.0.readers.taken())
    }
}

impl HistoryState {
    /// Locks the ring. The lock is held only for one push or lookup.
    fn ring(&self) -> MutexGuard<'_, EventRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Next item of a reader.
#[derive(Debug, Clone)]
pub(crate) enum ReadItem {
    /// An event.
    Event(Arc<Event>),
    /// A gap: events are missing here.
    Reset(Reset),
}

/// A reader of the history, with its position.
#[derive(Debug)]
pub(crate) struct EventReader {
    events: EventHistory,
    /// Number of the next event to read.
    at: u64,
    /// The reader's last id is of another run, or in the future: the next item is a reset.
    lost: bool,
    vm: Option<VmName>,
    published: watch::Receiver<u64>,
    /// Place of a client; the daemon's own readers need none.
    _place: Option<OwnedSemaphorePermit>,
}

impl EventReader {
    /// Returns the id of the last event read or skipped, from which the reader can resume.
    pub(crate) fn last(&self) -> EventId {
        EventId { run: self.events.0.run, number: self.at - 1 }
    }

    /// Returns the next item; waits until there is one.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> ReadItem {
        loop {
            if let Some(read) = self.look() {
                return read;
            }
            // Cannot fail: `self.events` keeps the sender alive.
            let _ = self.published.changed().await;
        }
    }

    fn look(&mut self) -> Option<ReadItem> {
        if std::mem::take(&mut self.lost) {
            return Some(ReadItem::Reset(Reset { missed: None }));
        }
        self.published.mark_unchanged();
        let ring = self.events.0.ring();
        let missed = ring.oldest().saturating_sub(self.at);
        if missed > 0 {
            self.at = ring.oldest();
            self.events.0.missed.fetch_add(missed, Ordering::Relaxed);
            return Some(ReadItem::Reset(Reset { missed: Some(missed) }));
        }
        while let Some(event) = ring.get(self.at) {
            self.at += 1;
            if self.vm.as_ref().is_none_or(|vm| *vm == event.vm) {
                return Some(ReadItem::Event(event));
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
            parent: None,
            parent_vm: None,
            configured: None,
            configuration: None,
            incarnation: Incarnation::default(),
        }
    }

    fn read(reader: &mut EventReader) -> Option<String> {
        match reader.next().now_or_never()? {
            ReadItem::Event(event) => Some(event.vm.to_string()),
            ReadItem::Reset(reset) => Some(format!("{:?}", reset.missed)),
        }
    }

    #[test]
    fn a_new_reader_gets_only_future_events() {
        let events = EventHistory::new();
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
    fn a_reader_that_resumes_gets_every_event_exactly_once() {
        let events = EventHistory::new();
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
    fn a_slow_reader_is_told_how_many_events_it_missed_and_delays_nothing() {
        let events = EventHistory::new();
        let mut reader = events.reader(ReaderKind::Tcp, None, None).unwrap();
        (0..KEPT + 5).for_each(|n| events.publish(event(&format!("vm-{n}"))));
        assert_eq!(read(&mut reader).as_deref(), Some("Some(5)"));
        assert_eq!(read(&mut reader).as_deref(), Some("vm-5"));
        assert_eq!(events.figures(), (KEPT as u64 + 5, 5, 1));
    }

    #[test]
    fn an_id_of_another_run_or_from_the_future_causes_a_reset() {
        let events = EventHistory::new();
        events.publish(event("a"));
        for id in [EventId { run: 1, number: 1 }, EventId { run: events.0.run, number: 99 }] {
            let mut reader = events.reader(ReaderKind::Tcp, Some(id), None).unwrap();
            assert_eq!(read(&mut reader).as_deref(), Some("None"), "{id}");
            assert_eq!(read(&mut reader), None, "{id}");
        }
    }

    #[test]
    fn a_filtered_reader_advances_its_id_over_skipped_events() {
        let events = EventHistory::new();
        let mut reader = events.reader(ReaderKind::Tcp, None, "b".parse().ok()).unwrap();
        ["a", "b", "c"].into_iter().for_each(|vm| events.publish(event(vm)));
        assert_eq!(read(&mut reader).as_deref(), Some("b"));
        assert_eq!(read(&mut reader), None);
        assert_eq!(reader.last().number, 3);
    }

    #[test]
    fn the_number_of_readers_of_each_kind_is_limited() {
        let events = EventHistory::new();
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
