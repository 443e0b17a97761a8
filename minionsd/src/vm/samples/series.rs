//! Series of samples of one guest. Its supervisor writes it; handlers read it without asking the guest.

use super::point::{StoredPoint, milliseconds};
use minions_api::Timestamp;
use minions_api::samples::SamplePoint;
use minions_proto::message::GuestSample;
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Time for which points are kept.
const KEPT: Duration = Duration::from_hours(1);

/// Number of intervals after which a sample says nothing about the guest any more.
const CURRENT_FOR: u32 = 3;

/// Longest pause after failures, in intervals.
const MOST_INTERVALS: u32 = 8;

/// Time before a sample is due at which it may be taken: probes of all VMs start together at the end of a step of 100 ms.
const EARLY: Duration = Duration::from_millis(150);

/// Number of entries that are kept of each list: each is several series in Prometheus, which the guest makes.
const MAX_ENTRIES: usize = 32;

/// Limit of each text of a guest, in bytes. A device or interface has at most 31.
const MAX_TEXT: usize = 64;

/// Last sample, and its time. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct KeptSample {
    pub(crate) sample: Arc<GuestSample>,
    pub(crate) at: Timestamp,
    received: Instant,
    interval: Duration,
}

impl KeptSample {
    /// Returns the time since the sample was received.
    pub(crate) fn age(&self) -> Duration {
        self.received.elapsed()
    }

    /// Reports whether the figures are still those of the guest: a later sample would have come otherwise.
    pub(crate) fn is_current(&self) -> bool {
        self.age() <= self.interval * CURRENT_FOR
    }
}

/// Samples of one guest. Clones share them.
///
/// An hour at an interval of 10 s takes 23 kB, and the last sample 1 to 2 kB; a hostile guest can make that 20 kB.
#[derive(Debug, Clone)]
pub(crate) struct SampleSeries {
    state: Arc<Mutex<SeriesState>>,
    interval: Option<Duration>,
}

#[derive(Debug)]
struct SeriesState {
    points: VecDeque<StoredPoint>,
    latest: Option<KeptSample>,
    /// Time of the next sample.
    due: Instant,
    /// Number of samples in a row that failed.
    failures: u32,
    /// True if the agent reported samples when it was asked last.
    is_reported: bool,
}

impl SampleSeries {
    /// Creates an empty series. Without an interval, it stays empty.
    pub(crate) fn new(interval: Option<Duration>) -> Self {
        let state = SeriesState {
            points: VecDeque::new(),
            latest: None,
            due: Instant::now(),
            failures: 0,
            is_reported: false,
        };
        Self { state: Arc::new(Mutex::new(state)), interval }
    }

    /// Returns the time between two samples.
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// Returns the last sample of the current boot.
    pub(crate) fn latest(&self) -> Option<KeptSample> {
        self.state().latest.clone()
    }

    /// Returns the points after a time, the oldest first; all of them if the time is after the last one, because the host's
    /// clock was set back.
    pub(crate) fn since(&self, since: Option<Timestamp>) -> Vec<SamplePoint> {
        let since = since.map_or(0, milliseconds);
        let state = self.state();
        let is_later = state.points.back().is_some_and(|last| last.at_ms < since);
        let is_after = |point: &&StoredPoint| is_later || point.at_ms > since;
        state.points.iter().filter(is_after).map(StoredPoint::shown).collect()
    }

    /// Reports whether a sample is due, and counts it as asked for. `is_reported`: the agent reports samples now.
    pub(in super::super) fn take_due(&self, is_reported: bool) -> bool {
        let Some(interval) = self.interval else { return false };
        let (mut state, now) = (self.state(), Instant::now());
        state.is_reported = is_reported;
        let is_due = is_reported && state.due <= now + EARLY;
        if is_due {
            state.due = now + interval;
        }
        is_due
    }

    /// Shortens a pause so that it ends when the next sample is due.
    pub(in super::super) fn before_due(&self, pause: Duration) -> Duration {
        let state = self.state();
        if self.interval.is_none() || !state.is_reported {
            return pause;
        }
        pause.min(state.due.saturating_duration_since(Instant::now()).max(EARLY))
    }

    /// Handles the answer to a request for a sample; `None` if it failed.
    pub(in super::super) fn asked(&self, sample: Option<GuestSample>, at: Timestamp) {
        let Some(interval) = self.interval else { return };
        match sample {
            Some(sample) => self.record(sample, at, interval),
            None => {
                let mut state = self.state();
                let pause = interval * 2_u32.saturating_pow(state.failures).min(MOST_INTERVALS);
                state.failures = state.failures.saturating_add(1);
                state.due = Instant::now() + pause;
            }
        }
    }

    /// Begins another boot or instance of the guest: its counters are not those of the last sample.
    pub(in super::super) fn begin_boot(&self) {
        let mut state = self.state();
        (state.latest, state.failures, state.due) = (None, 0, Instant::now());
    }

    fn record(&self, sample: GuestSample, at: Timestamp, interval: Duration) {
        let (sample, received) = (Arc::new(bounded(sample)), Instant::now());
        let mut state = self.state();
        state.failures = 0;
        let before = state.latest.as_ref().filter(|before| before.is_current());
        let before = before.and_then(|before| {
            let elapsed = sample.uptime_ms.checked_sub(before.sample.uptime_ms)?;
            Some((
                &*before.sample,
                plausible(Duration::from_millis(elapsed), received - before.received)?,
            ))
        });
        let point = StoredPoint::of(&sample, at, before);
        let most =
            usize::try_from(KEPT.as_millis() / interval.as_millis().max(1)).unwrap_or(1).max(1);
        if state.points.capacity() == 0 {
            state.points.reserve_exact(most);
        }
        // Of the time after the host's clock was set back.
        while state.points.back().is_some_and(|last| last.at_ms >= point.at_ms) {
            state.points.pop_back();
        }
        let kept_ms = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
        let oldest = point.at_ms.saturating_sub(kept_ms);
        while state.points.len() >= most
            || state.points.front().is_some_and(|first| first.at_ms < oldest)
        {
            state.points.pop_front();
        }
        state.points.push_back(point);
        state.latest = Some(KeptSample { sample, at, received, interval });
    }

    fn state(&self) -> MutexGuard<'_, SeriesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time between two samples by the guest's clock, if it agrees roughly with that of the host: a guest that was
/// rewound, paused or delayed has no rates.
fn plausible(guest: Duration, host: Duration) -> Option<Duration> {
    (!guest.is_zero() && guest <= host * 2 && host <= guest * 2).then_some(guest)
}

/// Bounds what is kept of a guest's sample: the texts, the lists, and one entry for each name, because a name is a series of a
/// metric.
fn bounded(mut sample: GuestSample) -> GuestSample {
    for filesystem in sample.filesystems.iter_mut().flatten() {
        for text in [&mut filesystem.mount_point, &mut filesystem.fs_type, &mut filesystem.source] {
            bound(text);
        }
    }
    sample.disks.iter_mut().flatten().for_each(|disk| bound(&mut disk.name));
    sample.interfaces.iter_mut().flatten().for_each(|interface| bound(&mut interface.name));
    once(&mut sample.filesystems, |filesystem| &filesystem.mount_point);
    once(&mut sample.disks, |disk| &disk.name);
    once(&mut sample.interfaces, |interface| &interface.name);
    sample
}

/// Replaces control characters, of which Prometheus refuses NUL, and truncates a text.
fn bound(text: &mut String) {
    let visible = text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one });
    let mut visible: String = visible.take(MAX_TEXT).collect();
    visible.truncate(visible.floor_char_boundary(MAX_TEXT));
    visible.shrink_to_fit();
    *text = visible;
}

fn once<T>(list: &mut Option<Vec<T>>, name: impl Fn(&T) -> &String) {
    let mut seen = HashSet::new();
    if let Some(list) = list {
        list.retain(|entry| seen.insert(name(entry).clone()));
        list.truncate(MAX_ENTRIES);
        list.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::{CpuTimes, DiskCounters, InterfaceCounters};
    use std::time::UNIX_EPOCH;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn sample(uptime_ms: u64) -> Option<GuestSample> {
        let cpu = CpuTimes { user_ms: uptime_ms, idle_ms: uptime_ms, ..CpuTimes::default() };
        Some(GuestSample { uptime_ms, cpu: Some(cpu), ..GuestSample::default() })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn times(series: &SampleSeries, since: Option<Timestamp>) -> Vec<Timestamp> {
        series.since(since).iter().map(|point| point.at).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_is_kept_and_read_from_a_time_on() {
        let series = SampleSeries::new(Some(INTERVAL));
        assert!(series.latest().is_none() && series.since(None).is_empty());
        for count in 1..=400 {
            series.asked(sample(count * 10_000), at(count * 10));
            tokio::time::advance(INTERVAL).await;
        }
        let points = series.since(None);
        assert_eq!((points.len(), points[0].at, points[359].at), (360, at(410), at(4000)));
        assert_eq!(points[0].user_percent, Some(50.0));
        assert_eq!(series.since(Some(at(3980))).len(), 2);
        assert!(series.since(Some(at(4000))).is_empty());
        assert_eq!(series.latest().unwrap().age(), INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn points_older_than_an_hour_go_after_a_gap() {
        let series = SampleSeries::new(Some(INTERVAL));
        series.asked(sample(1000), at(100));
        series.asked(sample(2000), at(100 + 3_601));
        assert_eq!(times(&series, None), [at(3_701)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_clock_that_is_set_back_takes_the_points_after_it() {
        let series = SampleSeries::new(Some(INTERVAL));
        for seconds in [100, 110, 120, 105] {
            series.asked(sample(seconds), at(seconds));
        }
        assert_eq!(times(&series, None), [at(100), at(105)]);
        assert_eq!(times(&series, Some(at(120))), [at(100), at(105)]);
    }

    #[tokio::test(start_paused = true)]
    async fn samples_that_do_not_follow_each_other_have_no_rates() {
        for (uptime, pause, has_rates) in [
            (11_000, INTERVAL, true),
            (500, INTERVAL, false),
            (90_000, INTERVAL, false),
            (2_000, INTERVAL, false),
            (41_000, INTERVAL * 4, false),
        ] {
            let series = SampleSeries::new(Some(INTERVAL));
            series.asked(sample(1000), at(0));
            tokio::time::advance(pause).await;
            series.asked(sample(uptime), at(10));
            let rate = series.since(None).last().unwrap().user_percent;
            assert_eq!(rate.is_some(), has_rates, "{uptime} {pause:?}");
        }
        let series = SampleSeries::new(Some(INTERVAL));
        series.asked(sample(1000), at(0));
        tokio::time::advance(INTERVAL).await;
        series.begin_boot();
        assert!(series.latest().is_none());
        series.asked(sample(11_000), at(10));
        assert_eq!(series.since(None).last().unwrap().user_percent, None, "of another boot");
    }

    #[tokio::test(start_paused = true)]
    async fn a_sample_is_due_at_each_interval_and_later_after_failures() {
        let series = SampleSeries::new(Some(INTERVAL));
        let pause = Duration::from_secs(60);
        assert_eq!(series.before_due(pause), pause, "nothing is known of the agent");
        assert!(!series.take_due(false) && series.take_due(true) && !series.take_due(true));
        assert_eq!(series.before_due(pause), INTERVAL);
        assert_eq!(series.before_due(Duration::from_secs(5)), Duration::from_secs(5));
        for intervals in [1, 2, 4, 8, 8] {
            series.asked(None, at(0));
            assert_eq!(series.before_due(pause * 60), INTERVAL * intervals);
        }
        series.asked(sample(1), at(0));
        tokio::time::advance(INTERVAL * 8).await;
        assert!(series.take_due(true));
        assert_eq!(series.before_due(pause), INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_without_an_interval_stays_empty() {
        let series = SampleSeries::new(None);
        assert!(!series.take_due(true));
        series.asked(sample(1), at(0));
        assert!(series.latest().is_none() && series.since(None).is_empty());
    }

    #[tokio::test]
    async fn texts_and_lists_are_bounded_and_a_name_occurs_once() {
        let series = SampleSeries::new(Some(INTERVAL));
        let disk = |name: &str, reads| DiskCounters {
            name: name.into(),
            reads,
            ..DiskCounters::default()
        };
        let interface = |name: String| InterfaceCounters { name, ..InterfaceCounters::default() };
        let mut interfaces: Vec<_> =
            (0..64).map(|count| interface(format!("eth{count}"))).collect();
        interfaces.insert(0, interface("é".repeat(10_000)));
        let sample = GuestSample {
            disks: Some(vec![disk("v\0da", 1), disk("vdb", 2), disk("v\nda", 3)]),
            interfaces: Some(interfaces),
            ..GuestSample::default()
        };
        series.asked(Some(sample), at(0));
        let kept = series.latest().unwrap().sample;
        assert_eq!(kept.disks, Some(vec![disk("v\u{fffd}da", 1), disk("vdb", 2)]));
        let interfaces = kept.interfaces.as_ref().unwrap();
        assert_eq!((interfaces.len(), interfaces[0].name.len()), (32, 64));
    }
}
