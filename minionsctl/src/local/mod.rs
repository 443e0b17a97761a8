//! This side of a remote program: what is typed or piped into us, and the signals that we get.

mod escape;
mod input;
mod signals;
pub(crate) mod terminal;

pub(crate) use escape::HELP;
pub(crate) use input::read_all;

use crate::failure::Failure;
use bytes::Bytes;
use escape::{Escapes, Typed};
use input::Input;
use signals::{Caught, Signals};
use std::collections::VecDeque;
use std::future::pending;
use std::io;

/// What happened here.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Bytes for the program.
    Input(Bytes),
    /// There are no more.
    InputEnded,
    /// They can't be read.
    InputFailed(io::Error),
    /// The user wants to know the escapes.
    Help,
    /// The user wants to leave.
    Leave,
    /// A signal asks us to end.
    Signal(i32),
    /// The terminal has another size.
    Resized,
}

/// This side.
#[derive(Debug)]
pub(crate) struct Local {
    signals: Signals,
    input: Option<Input>,
    escapes: Option<Escapes>,
    typed: VecDeque<Typed>,
}

impl Local {
    /// With our input, if the program shall have it; with escapes, if it comes from a terminal that
    /// passes on every key; with its size, if the program has a terminal.
    pub(crate) fn new(interactive: bool, raw: bool, terminal: bool) -> Result<Self, Failure> {
        Ok(Self {
            signals: Signals::listen(terminal)?,
            input: interactive.then(Input::start).transpose()?,
            escapes: raw.then(Escapes::default),
            typed: VecDeque::new(),
        })
    }

    /// The program takes no input, or no more.
    pub(crate) fn stop_input(&mut self) {
        self.input = None;
    }

    /// What happens next; at most `room` bytes of input. Cancel safe.
    pub(crate) async fn next(&mut self, room: usize) -> Happened {
        loop {
            match self.typed.pop_front() {
                Some(Typed::Input(bytes)) => return Happened::Input(bytes),
                Some(Typed::Leave) => return Happened::Leave,
                Some(Typed::Help) => return Happened::Help,
                None => {}
            }
            // An escape that turned out to be none gives one byte more than was read.
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
