//! Whether a thread that should answer does, in the time that it had for it.

use rustix::thread::gettid;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Questions to a runtime, and its answers. Clones are the same pulse.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    shared: Arc<Shared>,
    /// Time to answer after which the runtime counts as hanging.
    limit: Duration,
}

#[derive(Debug)]
struct Shared {
    asked: AtomicU64,
    answered: AtomicU64,
    question: Notify,
    /// What the kernel says of the runtime's thread (proc(5), `schedstat`); some kernels don't.
    schedule: Option<File>,
}

impl Pulse {
    pub(super) fn of_this_thread(limit: Duration) -> Self {
        let thread = gettid().as_raw_nonzero();
        let schedule = File::open(format!("/proc/self/task/{thread}/schedstat")).ok();
        let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        let shared = Shared { asked, answered, question: Notify::new(), schedule };
        Self { shared: Arc::new(shared), limit }
    }

    /// Answers, for ever.
    pub(super) async fn beat<T>(&self) -> T {
        loop {
            self.shared.question.notified().await;
            let asked = self.shared.asked.load(Ordering::Acquire);
            self.shared.answered.store(asked, Ordering::Release);
        }
    }

    pub(super) fn examination(&self) -> Examination {
        let looked = Look::now(&self.shared);
        Examination { pulse: self.clone(), looked, owed: Duration::ZERO }
    }
}

/// One who asks, and counts how long the answer is owed.
#[derive(Debug)]
pub(super) struct Examination {
    pulse: Pulse,
    looked: Look,
    owed: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    /// Time that the thread has spent ready to run and without a processor.
    waited: Duration,
}

impl Look {
    fn now(shared: &Shared) -> Self {
        let waited = shared.schedule.as_ref().and_then(|file| waited(file).ok());
        Self { at: Instant::now(), waited: waited.unwrap_or_default() }
    }
}

impl Examination {
    pub(super) fn is_alive(&self) -> bool {
        self.owed < self.pulse.limit
    }

    /// Looks for the answer to the last question, and asks the next one. To be called every `beat`.
    pub(super) fn examine(&mut self, beat: Duration) {
        let shared = &self.pulse.shared;
        let now = Look::now(shared);
        if shared.answered.load(Ordering::Acquire) == shared.asked.load(Ordering::Acquire) {
            self.owed = Duration::ZERO;
            shared.asked.fetch_add(1, Ordering::Release);
        } else {
            self.owed += had(self.looked, now, beat);
        }
        self.looked = now;
        shared.question.notify_one();
    }
}

/// The time to answer between two looks. A guest that was paused meanwhile had none of it.
fn had(before: Look, now: Look, beat: Duration) -> Duration {
    let passed = now.at.saturating_duration_since(before.at).min(2 * beat);
    passed.saturating_sub(now.waited.saturating_sub(before.waited))
}

/// `time on a processor, time waiting for one, timeslices`, in nanoseconds.
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

    fn examined(examination: &mut Examination) -> bool {
        std::thread::sleep(BEAT);
        examination.examine(BEAT);
        examination.is_alive()
    }

    #[test]
    fn a_runtime_that_blocks_for_longer_than_the_limit_hangs_and_may_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pulse = Pulse::of_this_thread(5 * BEAT);
        let mut examination = pulse.examination();
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
            assert!(examined(&mut examination), "it answers each time");
            answer();
        }
        // Nothing runs the runtime now. A machine that is busy takes its time from it, so it may take
        // any number of looks.
        assert!((0..10_000).any(|_| !examined(&mut examination)));
        answer();
        assert!(examined(&mut examination));
    }

    #[test]
    fn time_without_a_processor_and_a_pause_of_the_guest_are_not_the_runtimes() {
        let at = Instant::now();
        let look = |seconds, waited| Look {
            at: at + Duration::from_secs(seconds),
            waited: Duration::from_secs(waited),
        };
        let beat = Duration::from_secs(15);
        let had = |now| had(look(0, 0), now, beat).as_secs();
        assert_eq!(had(look(15, 0)), 15, "asleep or busy");
        assert_eq!(had(look(15, 14)), 1, "kept waiting");
        assert_eq!(had(look(15, 15)), 0, "kept waiting all the time");
        assert_eq!(had(look(3600, 0)), 30, "the guest was paused for an hour");
    }

    #[test]
    fn the_kernel_says_how_long_a_thread_waited() {
        let pulse = Pulse::of_this_thread(BEAT);
        let schedule = pulse.shared.schedule.as_ref().unwrap();
        assert!(waited(schedule).is_ok());
    }
}
