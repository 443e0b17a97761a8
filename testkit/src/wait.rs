//! Waiting for a condition of a test.
//!
//! A condition returns `bool`, or an `Option` or a `Result` whose value ends the wait. An error is the last value seen,
//! which the panic at the deadline shows.

use std::fmt::Debug;
use std::panic::Location;
use std::time::{Duration, Instant};

/// Deadline of every wait. Long enough for a very busy machine; a test that passes does not reach it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Interval of the checks.
const POLL: Duration = Duration::from_millis(10);

/// Result of one check of a condition.
pub trait Condition {
    /// Value of a condition that holds.
    type Value;

    /// Returns the value, or a description of the last value seen.
    ///
    /// # Errors
    ///
    /// The condition does not hold yet.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Condition for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err(String::new()) }
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(String::new)
    }
}

impl<T, E: Debug> Condition for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|seen| format!("; last seen: {seen:?}"))
    }
}

/// Polls until `condition` holds, at most for [`DEADLINE`], and returns its value. `what` completes the sentence
/// "waiting until …".
///
/// # Panics
///
/// Panics at the deadline, with `what` and the last value seen.
#[track_caller]
pub fn until<C: Condition>(what: &str, condition: impl FnMut() -> C) -> C::Value {
    until_within(DEADLINE, what, condition)
}

/// Polls as [`until`], with another deadline.
///
/// # Panics
///
/// As [`until`].
#[track_caller]
pub fn until_within<C: Condition>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> C,
) -> C::Value {
    let attempts = WaitAttempts::new(limit, what);
    loop {
        if let Some(value) = attempts.judge(condition()) {
            return value;
        }
        std::thread::sleep(POLL);
    }
}

/// Polls as [`until`], without blocking the thread.
///
/// # Panics
///
/// As [`until`].
#[cfg(feature = "fake-vmm")]
#[track_caller]
pub fn until_async<C: Condition>(
    what: &str,
    condition: impl AsyncFnMut() -> C,
) -> impl Future<Output = C::Value> {
    until_async_within(DEADLINE, what, condition)
}

/// Polls as [`until_async`], with another deadline.
///
/// # Panics
///
/// As [`until`].
#[cfg(feature = "fake-vmm")]
#[track_caller]
pub fn until_async_within<C: Condition>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> C,
) -> impl Future<Output = C::Value> {
    let attempts = WaitAttempts::new(limit, what);
    async move {
        loop {
            if let Some(value) = attempts.judge(condition().await) {
                return value;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Wait in progress.
struct WaitAttempts<'a> {
    what: &'a str,
    deadline: Instant,
    caller: &'static Location<'static>,
}

impl<'a> WaitAttempts<'a> {
    #[track_caller]
    fn new(limit: Duration, what: &'a str) -> Self {
        Self { what, deadline: Instant::now() + limit, caller: Location::caller() }
    }

    /// Returns the value of a condition that holds, and panics if it does not hold at the deadline.
    fn judge<C: Condition>(&self, condition: C) -> Option<C::Value> {
        match condition.outcome() {
            Ok(value) => Some(value),
            Err(seen) => {
                let Self { what, deadline, caller } = self;
                assert!(
                    Instant::now() < *deadline,
                    "{caller}: timed out waiting until {what}{seen}"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_the_condition_is_returned() {
        let mut checks = 0;
        let value = until("the third check", || {
            checks += 1;
            (checks == 3).then_some("value")
        });
        assert_eq!((value, checks), ("value", 3));
    }

    #[test]
    fn the_panic_names_the_caller_the_condition_and_the_last_value() {
        let line = line!() + 2;
        let panic = std::panic::catch_unwind(|| {
            until_within(Duration::ZERO, "it is 4", || Err::<(), _>(3));
        });
        let message = *panic.unwrap_err().downcast::<String>().unwrap();
        let at = format!("src/wait.rs:{line}:13");
        let expected = format!("{at}: timed out waiting until it is 4; last seen: 3");
        assert!(message.ends_with(&expected), "{message}");
    }
}
