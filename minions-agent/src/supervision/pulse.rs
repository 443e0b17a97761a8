//! Detects a hanging runtime: counts only the time that its thread could have used to answer.

use rustix::thread::gettid;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Questions to a runtime, and its answers. Clones share the same state.
#[derive(Debug, Clone)]
pub(super) struct RuntimePulse {
    shared: Arc<PulseState>,
    /// Unanswered time after which the runtime counts as hanging.
    limit: Duration,
}

#[derive(Debug)]
struct PulseState {
    asked: AtomicU64,
    answered: AtomicU64,
    question: Notify,
    /// Scheduling statistics of the runtime's thread (proc(5), `schedstat`); `None` on kernels without them.
    schedule: Option<File>,
}

impl RuntimePulse {
    pub(super) fn of_this_thread(limit: Duration) -> Self {
        let thread = gettid().as_raw_nonzero();
        let schedule = File::open(format!("/proc/self/task/{thread}/schedstat")).ok();
        let shared = PulseState {
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            question: Notify::new(),
            schedule,
        };
        Self { shared: Arc::new(shared), limit }
    }

    /// Answers questions; never returns.
    pub(super) async fn beat<T>(&self) -> T {
        loop {
            self.shared.question.notified().await;
            let asked = self.shared.asked.load(Ordering::Acquire);
            self.shared.answered.store(asked, Ordering::Release);
        }
    }

    pub(super) fn hang_detector(&self) -> HangDetector {
        let last = ScheduleReading::now(&self.shared);
        HangDetector { pulse: self.clone(), last, owed: Duration::ZERO }
    }
}

/// Watchdog side of a pulse: asks, and counts how long the answer is overdue.
#[derive(Debug)]
pub(super) struct HangDetector {
    pulse: RuntimePulse,
    last: ScheduleReading,
    owed: Duration,
}

#[derive(Debug, Clone, Copy)]
struct ScheduleReading {
    at: Instant,
    /// Total time that the thread has spent ready to run but without a processor.
    waited: Duration,
}

impl ScheduleReading {
    fn now(shared: &PulseState) -> Self {
        let waited = shared.schedule.as_ref().and_then(|file| waited(file).ok());
        Self { at: Instant::now(), waited: waited.unwrap_or_default() }
    }
}

impl HangDetector {
    pub(super) fn is_alive(&self) -> bool {
        self.owed < self.pulse.limit
    }

    /// Checks for the answer to the last question and asks the next one. Must be called every `beat`.
    pub(super) fn examine(&mut self, beat: Duration) {
        let shared = &self.pulse.shared;
        let now = ScheduleReading::now(shared);
        if shared.answered.load(Ordering::Acquire) == shared.asked.load(Ordering::Acquire) {
            self.owed = Duration::ZERO;
            shared.asked.fetch_add(1, Ordering::Release);
        } else {
            self.owed += had(self.last, now, beat);
        }
        self.last = now;
        shared.question.notify_one();
    }
}

/// Returns the time that the thread had to answer between two readings. Capped at two beats, because the
/// guest may have been paused in between.
fn had(before: ScheduleReading, now: ScheduleReading, beat: Duration) -> Duration {
    let passed = now.at.saturating_duration_since(before.at).min(2 * beat);
    passed.saturating_sub(now.waited.saturating_sub(before.waited))
}

/// Reads the second number of `schedstat`: time on a processor, time waiting for one (both in nanoseconds),
/// timeslices.
fn waited(schedule: &File) -> io::Result<Duration> {
    let mut text = [0; 128];
    let len = schedule.read_at(&mut text, 0)?;
    let text = String::from_utf8_lossy(&text[..len]);
    let nanoseconds = text.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(10);

    fn examined(detector: &mut HangDetector) -> bool {
        std::thread::sleep(BEAT);
        detector.examine(BEAT);
        detector.is_alive()
    }

    #[test]
    fn a_runtime_blocked_beyond_the_limit_counts_as_hanging_until_it_answers() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pulse = RuntimePulse::of_this_thread(5 * BEAT);
        let mut detector = pulse.hang_detector();
        let answer = || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = pulse.beat() => {}
                    () = tokio::task::yield_now() => {}
                }
            });
        };
        for _ in 0..20 {
            assert!(examined(&mut detector), "the runtime answers each time");
            answer();
        }
        // Nothing drives the runtime now. On a busy machine, waiting for a processor does not count, so any
        // number of readings may be necessary.
        assert!((0..10_000).any(|_| !examined(&mut detector)));
        answer();
        assert!(examined(&mut detector));
    }

    #[test]
    fn waiting_for_a_processor_and_guest_pauses_do_not_count() {
        let at = Instant::now();
        let look = |seconds, waited| ScheduleReading {
            at: at + Duration::from_secs(seconds),
            waited: Duration::from_secs(waited),
        };
        let beat = Duration::from_secs(15);
        let had = |now| had(look(0, 0), now, beat).as_secs();
        assert_eq!(had(look(15, 0)), 15, "asleep or busy");
        assert_eq!(had(look(15, 14)), 1, "waited for a processor");
        assert_eq!(had(look(15, 15)), 0, "waited for a processor all the time");
        assert_eq!(had(look(3600, 0)), 30, "the guest was paused for an hour");
    }

    #[test]
    fn the_kernel_reports_how_long_a_thread_waited() {
        let pulse = RuntimePulse::of_this_thread(BEAT);
        let schedule = pulse.shared.schedule.as_ref().unwrap();
        assert!(waited(schedule).is_ok());
    }
}
