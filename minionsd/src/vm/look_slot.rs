//! Regular look for drift, which the supervisor makes for the reconciler on its own connection after a probe: it needs no dial
//! and no wake-up of its own. The reconciler hears of it only if its result is news.

use super::network_differences::differences;
use minions_api::VmName;
use minions_proto::frame::EncodeError;
use minions_proto::message::{ChangeNetwork, NetworkChanged, encode_request};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Interval between looks for drift at one VM.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Request of a look, encoded: each VM has one, and its structures take three times the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookRequest(Box<[u8]>);

impl LookRequest {
    /// Creates the request of a look that compares the guest with `change`.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]: the request is longer than a frame.
    pub(crate) fn of(change: &ChangeNetwork) -> Result<Self, EncodeError> {
        let look = ChangeNetwork { dry_run: Some(true), ..change.clone() };
        Ok(Self(encode_request(&look)?.into()))
    }

    /// Returns the frame.
    pub(super) fn frame(&self) -> &[u8] {
        &self.0
    }
}

/// Regular look at one VM.
#[derive(Debug)]
pub(crate) struct RegularLook {
    pub(crate) vm: VmName,
    /// Number of the look, which no other one has.
    pub(crate) number: u64,
    pub(crate) request: LookRequest,
    /// Earliest time of the next look.
    pub(crate) due: Instant,
    /// True if a guest without differences is news too.
    pub(crate) reports_agreement: bool,
    /// Place for the result that is news. The look ends with it, so no VM has more than one result there.
    pub(crate) reports: mpsc::UnboundedSender<LookReport>,
}

/// Result of a regular look, which has ended with it.
#[derive(Debug)]
pub(crate) struct LookReport {
    pub(crate) look: Box<RegularLook>,
    pub(crate) news: LookNews,
}

/// News of a regular look. The reply itself is not kept, because an agent can make it a megabyte long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookNews {
    /// The guest has the configuration.
    Agrees,
    /// The guest has other settings, as in this text.
    Differs(String),
    /// The reply was not received.
    Unanswered,
}

impl LookNews {
    fn of(reply: Option<NetworkChanged>) -> Self {
        match reply {
            None => Self::Unanswered,
            Some(reply) if reply.changed == Some(false) => Self::Agrees,
            Some(reply) => Self::Differs(differences(&reply)),
        }
    }
}

/// Place for the regular look at one VM. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LookSlot(Arc<Mutex<SlotState>>);

#[derive(Debug, Default)]
struct SlotState {
    look: Option<Box<RegularLook>>,
    /// Number of the look while it is being made, unless it was withdrawn meanwhile.
    under_way: Option<u64>,
}

impl LookSlot {
    /// Begins a regular look, in place of an earlier one.
    pub(crate) fn begin(&self, look: RegularLook) {
        *self.state() = SlotState { look: Some(Box::new(look)), under_way: None };
    }

    /// Ends the regular look. The result of one that is being made is ignored.
    pub(crate) fn withdraw(&self) {
        *self.state() = SlotState::default();
    }

    /// Takes the look if it is due.
    pub(super) fn take_due(&self, now: Instant) -> Option<Box<RegularLook>> {
        let mut state = self.state();
        let look = state.look.take_if(|look| look.due <= now)?;
        state.under_way = Some(look.number);
        Some(look)
    }

    /// Handles the reply to a look that was taken.
    pub(super) fn made(&self, mut look: Box<RegularLook>, reply: Option<NetworkChanged>) {
        let mut state = self.state();
        if state.under_way.take_if(|number| *number == look.number).is_none() {
            return;
        }
        let news = LookNews::of(reply);
        if news == LookNews::Agrees && !look.reports_agreement {
            look.due = Instant::now() + LOOK_INTERVAL;
            state.look = Some(look);
        } else {
            let reports = look.reports.clone();
            // Fails only when the daemon ends.
            let _ = reports.send(LookReport { look, news });
        }
    }

    /// Returns the time of the next look.
    #[cfg(test)]
    pub(crate) fn due(&self) -> Option<Instant> {
        self.state().look.as_ref().map(|look| look.due)
    }

    fn state(&self) -> MutexGuard<'_, SlotState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TestLooks {
        slot: LookSlot,
        reports: mpsc::UnboundedReceiver<LookReport>,
        sender: mpsc::UnboundedSender<LookReport>,
        now: Instant,
    }

    impl TestLooks {
        fn new() -> Self {
            let (sender, reports) = mpsc::unbounded_channel();
            Self { slot: LookSlot::default(), reports, sender, now: Instant::now() }
        }

        fn begin(&self, number: u64, reports_agreement: bool) {
            self.slot.begin(RegularLook {
                vm: "a".parse().unwrap(),
                number,
                request: LookRequest::of(&ChangeNetwork::default()).unwrap(),
                due: self.now,
                reports_agreement,
                reports: self.sender.clone(),
            });
        }

        /// Makes the look that is due, and returns the number of the one that is news.
        fn make(&mut self, changed: Option<bool>) -> Option<u64> {
            let look = self.slot.take_due(self.now)?;
            assert!(self.slot.take_due(self.now).is_none(), "it is made twice at the same time");
            let reply = changed.map(|changed| NetworkChanged {
                changed: Some(changed),
                ..NetworkChanged::default()
            });
            self.slot.made(look, reply);
            self.reports.try_recv().ok().map(|report| report.look.number)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_is_repeated_without_news_until_the_guest_differs_or_does_not_answer() {
        let mut looks = TestLooks::new();
        for (number, news) in [(1, Some(true)), (2, None)] {
            looks.begin(number, false);
            for _ in 0..3 {
                assert_eq!(looks.make(Some(false)), None);
                assert_eq!(looks.slot.due(), Some(looks.now + LOOK_INTERVAL));
                assert!(looks.slot.take_due(looks.now).is_none(), "it is not due yet");
                tokio::time::advance(LOOK_INTERVAL).await;
                looks.now += LOOK_INTERVAL;
            }
            assert_eq!(looks.make(news), Some(number));
            assert_eq!(looks.slot.due(), None, "it has ended");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn agreement_is_news_only_where_it_was_asked_for() {
        let mut looks = TestLooks::new();
        looks.begin(7, true);
        assert_eq!(looks.make(Some(false)), Some(7));
        assert_eq!(looks.slot.due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_result_of_a_withdrawn_look_is_ignored() {
        let mut looks = TestLooks::new();
        looks.begin(1, false);
        let withdrawn = looks.slot.take_due(looks.now).unwrap();
        looks.slot.withdraw();
        looks.slot.made(withdrawn, None);
        assert!(looks.reports.try_recv().is_err() && looks.slot.due().is_none());

        looks.begin(2, false);
        let replaced = looks.slot.take_due(looks.now).unwrap();
        looks.begin(3, false);
        looks.slot.made(replaced, None);
        assert!(looks.reports.try_recv().is_err());
        assert_eq!(looks.make(None), Some(3));
    }

    #[test]
    fn a_look_changes_nothing() {
        let change = ChangeNetwork { dry_run: Some(false), ..ChangeNetwork::default() };
        let request = LookRequest::of(&change).unwrap();
        assert!(String::from_utf8_lossy(request.frame()).contains(r#""dry_run":true"#));
    }
}
