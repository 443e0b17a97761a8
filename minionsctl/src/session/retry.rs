//! How long, and how often, to look for a lost stream.

use crate::failure::Failure;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Attempts since the stream was lost.
#[derive(Debug)]
pub(super) struct Retry {
    patience: Duration,
    pause: Duration,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    at: Instant,
    why: Failure,
}

impl Retry {
    /// Gives up `patience` after a loss.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, pause: PAUSES.0, lost: None }
    }

    /// Whether the stream is lost at the moment.
    pub(super) fn is_on(&self) -> bool {
        self.lost.is_some()
    }

    /// The stream is lost, or an attempt has failed.
    pub(super) fn failed(&mut self, why: Failure) {
        let at = self.lost.take().map_or_else(Instant::now, |lost| lost.at);
        self.lost = Some(Lost { at, why });
    }

    /// The stream carries again.
    pub(super) fn succeeded(&mut self) {
        self.pause = PAUSES.0;
        self.lost = None;
    }

    /// When to give up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lost.as_ref().map(|lost| lost.at + self.patience)
    }

    /// Waits for the next attempt's time. Each wait is longer than the one before, also across
    /// streams that break at once.
    ///
    /// # Errors
    ///
    /// Why the last attempt failed, if it is too late for another.
    pub(super) async fn pause(&mut self) -> Result<(), Failure> {
        let Some(deadline) = self.deadline() else { return Ok(()) };
        let next = Instant::now() + self.pause;
        if next >= deadline {
            return Err(self.give_up());
        }
        sleep_until(next).await;
        self.pause = PAUSES.1.min(self.pause * 2);
        Ok(())
    }

    /// The end of all attempts.
    pub(super) fn give_up(&mut self) -> Failure {
        let why = self
            .lost
            .take()
            .map_or_else(|| Failure::Link(crate::link::LinkError::Silent), |lost| lost.why);
        Failure::NotReattached { patience: self.patience, source: Box::new(why) }
    }
}
