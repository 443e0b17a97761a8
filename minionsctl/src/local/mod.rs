//! The local side of a remote program: standard input, escapes and signals.

mod escape;
mod input;
mod signals;
pub(crate) mod terminal;

pub(crate) use escape::HELP;
pub(crate) use input::read_all;
pub(crate) use signals::SignalListeners;

use crate::failure::Failure;
use bytes::Bytes;
use escape::{EscapeParser, TypedInput};
use input::StdinReader;
use signals::CaughtSignal;
use std::collections::VecDeque;
use std::future::pending;
use std::io;

/// Local event.
#[derive(Debug)]
pub(crate) enum LocalEvent {
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
pub(crate) struct LocalEvents {
    signals: SignalListeners,
    input: Option<StdinReader>,
    escapes: Option<EscapeParser>,
    typed: VecDeque<TypedInput>,
}

impl LocalEvents {
    /// Starts reading standard input if `interactive`, interprets escapes if the terminal is `raw`, and reports
    /// changes of its size if the program has a `terminal`.
    pub(crate) fn new(interactive: bool, raw: bool, terminal: bool) -> Result<Self, Failure> {
        Ok(Self {
            signals: SignalListeners::listen(terminal)?,
            input: interactive.then(StdinReader::start).transpose()?,
            escapes: raw.then(EscapeParser::default),
            typed: VecDeque::new(),
        })
    }

    /// Stops reading standard input: the program takes none.
    pub(crate) fn stop_input(&mut self) {
        self.input = None;
    }

    /// Waits for the next event, with at most `room` bytes of input. Cancel safe.
    pub(crate) async fn next(&mut self, room: usize) -> LocalEvent {
        loop {
            match self.typed.pop_front() {
                Some(TypedInput::Input(bytes)) => return LocalEvent::Input(bytes),
                Some(TypedInput::Leave) => return LocalEvent::Leave,
                Some(TypedInput::Help) => return LocalEvent::Help,
                None => {}
            }
            // A `~` that turns out not to begin an escape yields one byte more than was read.
            let room = room.saturating_sub(usize::from(self.escapes.is_some()));
            let chunk = tokio::select! {
                caught = self.signals.next() => return match caught {
                    CaughtSignal::Ending(number) => LocalEvent::Signal(number),
                    CaughtSignal::Window => LocalEvent::Resized,
                },
                chunk = next(&mut self.input, room) => chunk,
            };
            match chunk {
                Err(error) => return LocalEvent::InputFailed(error),
                Ok(chunk) if chunk.is_empty() => {
                    self.input = None;
                    return LocalEvent::InputEnded;
                }
                Ok(chunk) => match &mut self.escapes {
                    Some(escapes) => self.typed.extend(escapes.typed(&chunk)),
                    None => return LocalEvent::Input(chunk),
                },
            }
        }
    }
}

async fn next(input: &mut Option<StdinReader>, room: usize) -> io::Result<Bytes> {
    match input {
        Some(input) => input.next(room).await,
        None => pending().await,
    }
}
