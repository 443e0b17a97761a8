//! All output to the terminal.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the only module that prints")]

use std::{
    fmt,
    io::{Write, stdout},
    time::{Duration, Instant},
};

/// Result of a step that succeeded.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing had to be done.
    Cached,
    /// Work was done; the text says which, in the past tense: "built".
    Done(String),
}

impl Outcome {
    pub(crate) fn done(what: impl Into<String>) -> Self {
        Self::Done(what.into())
    }
}

/// Numbers the steps of one task.
#[derive(Debug)]
pub(crate) struct Steps {
    next: usize,
    total: usize,
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        Self { next: 1, total }
    }

    /// Runs a step that prints nothing itself: `[2/7] vsock backend … built in 51 s`.
    pub(crate) fn run(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        print!("[{}/{}] {name} … ", self.next, self.total);
        // A terminal that is gone needs no output.
        let _ = stdout().flush();
        self.finish(step)
    }

    /// Runs a step whose own output is shown.
    pub(crate) fn run_aloud(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<Outcome>,
    ) -> anyhow::Result<()> {
        println!("[{}/{}] {name} …", self.next, self.total);
        self.finish(step)
    }

    fn finish(&mut self, step: impl FnOnce() -> anyhow::Result<Outcome>) -> anyhow::Result<()> {
        let start = Instant::now();
        let outcome = step();
        let took = SecondsShown(start.elapsed());
        match &outcome {
            Ok(Outcome::Cached) => println!("cached"),
            Ok(Outcome::Done(what)) => println!("{what} in {took}"),
            Err(_) => println!("failed after {took}"),
        }
        self.next += 1;
        outcome.map(drop)
    }
}

/// Prints a line.
pub(crate) fn line(text: impl fmt::Display) {
    println!("{text}");
}

/// Prints the title of a part of the tour.
pub(crate) fn title(text: &str) {
    println!("\n── {text} ──");
}

/// Prints an error with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

struct SecondsShown(Duration);

impl fmt::Display for SecondsShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        if seconds < 10.0 { write!(f, "{seconds:.1} s") } else { write!(f, "{seconds:.0} s") }
    }
}
