//! Timing of the attempts to re-attach a lost stream.

use crate::failure::Failure;
use crate::link_error::LinkError;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// First and longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// State of the attempts since the stream was lost.
#[derive(Debug)]
pub(crate) struct ReattachTimer {
    patience: Duration,
    pause: Duration,
    lost: Option<StreamLoss>,
}

#[derive(Debug)]
struct StreamLoss {
    at: Instant,
    why: Failure,
}

impl ReattachTimer {
    /// Creates a state without a loss. Attempts end `patience` after a loss.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, pause: PAUSES.0, lost: None }
    }

    /// Sets the time for attempts.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Reports whether the stream is lost at the moment.
    pub(crate) fn is_on(&self) -> bool {
        self.lost.is_some()
    }

    /// Records the loss of the stream, or a failed attempt.
    pub(crate) fn failed(&mut self, why: Failure) {
        let at = self.lost.take().map_or_else(Instant::now, |lost| lost.at);
        self.lost = Some(StreamLoss { at, why });
    }

    /// Records that a message has arrived: the stream works.
    pub(crate) fn succeeded(&mut self) {
        self.pause = PAUSES.0;
        self.lost = None;
    }

    /// Returns the deadline of all attempts; `None` while the stream works.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.lost.as_ref().map(|lost| lost.at + self.patience)
    }

    /// Waits until the next attempt is due. Each wait is twice as long as the last one, up to the longest pause;
    /// streams that break before their first message do not reset it.
    ///
    /// # Errors
    ///
    /// [`Failure::NotReattached`] if the next attempt would be after the deadline.
    pub(crate) async fn pause(&mut self) -> Result<(), Failure> {
        let Some(deadline) = self.deadline() else { return Ok(()) };
        let next = Instant::now() + self.pause;
        if next >= deadline {
            return Err(self.give_up());
        }
        sleep_until(next).await;
        self.pause = PAUSES.1.min(self.pause * 2);
        Ok(())
    }

    /// Ends the attempts, and returns the failure to report.
    pub(crate) fn give_up(&mut self) -> Failure {
        let why =
            self.lost.take().map_or_else(|| Failure::Link(LinkError::Silent), |lost| lost.why);
        Failure::NotReattached { patience: self.patience, source: Box::new(why) }
    }
}
