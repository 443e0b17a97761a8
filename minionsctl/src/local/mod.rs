//! The local side of a remote program: standard input, escapes and signals.

mod escape;
mod input;
mod signals;
pub(crate) mod terminal;

pub(crate) use escape::HELP;

use crate::failure::Failure;
use bytes::Bytes;
use escape::{Escapes, Typed};
use input::Input;
use signals::{Caught, Signals};
use std::collections::VecDeque;
use std::future::pending;
use std::io;

/// Local event.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Bytes for the program.
    Input(Bytes),
    /// End of the input.
    InputEnded,
    /// Reading the input failed.
    InputFailed(io::Error),
    /// The user typed `~?`.
    Help,
    /// The user typed `~.`.
    Leave,
    /// A signal that ends minionsctl, by number.
    Signal(i32),
    /// The size of the terminal has changed.
    Resized,
}

/// Source of local events.
#[derive(Debug)]
pub(crate) struct Local {
    signals: Signals,
    input: Option<Input>,
    escapes: Option<Escapes>,
    typed: VecDeque<Typed>,
}

impl Local {
    /// Starts reading standard input if `interactive`, interprets escapes if the terminal is `raw`, and reports
    /// changes of its size if the program has a `terminal`.
    pub(crate) fn new(interactive: bool, raw: bool, terminal: bool) -> Result<Self, Failure> {
        Ok(Self {
            signals: Signals::listen(terminal)?,
            input: interactive.then(Input::start).transpose()?,
            escapes: raw.then(Escapes::default),
            typed: VecDeque::new(),
        })
    }

    /// Stops reading standard input: the program takes none.
    pub(crate) fn stop_input(&mut self) {
        self.input = None;
    }

    /// Waits for the next event, with at most `room` bytes of input. Cancel safe.
    pub(crate) async fn next(&mut self, room: usize) -> Happened {
        loop {
            match self.typed.pop_front() {
                Some(Typed::Input(bytes)) => return Happened::Input(bytes),
                Some(Typed::Leave) => return Happened::Leave,
                Some(Typed::Help) => return Happened::Help,
                None => {}
            }
            // A `~` that turns out not to begin an escape yields one byte more than was read.
            let room = room.saturating_sub(usize::from(self.escapes.is_some()));
            let chunk = tokio::select! {
                caught = self.signals.next() => return match caught {
                    Caught::Ending(number) => Happened::Signal(number),
                    Caught::Window => Happened::Resized,
                },
                chunk = next(&mut self.input, room) => chunk,
            };
            match chunk {
                Err(error) => return Happened::InputFailed(error),
                Ok(chunk) if chunk.is_empty() => {
                    self.input = None;
                    return Happened::InputEnded;
                }
                Ok(chunk) => match &mut self.escapes {
                    Some(escapes) => self.typed.extend(escapes.typed(&chunk)),
                    None => return Happened::Input(chunk),
                },
            }
        }
    }
}

async fn next(input: &mut Option<Input>, room: usize) -> io::Result<Bytes> {
    match input {
        Some(input) => input.next(room).await,
        None => pending().await,
    }
}
