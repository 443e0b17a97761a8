//! A remote program as if it were local: its output, local input and signals, over a stream that is re-attached
//! when it breaks.
//!
//! ```text
//!            ┌────────── connecting ◀────────────┐
//!   gives up │              │ attached           │ stream lost
//!   or left  ▼              ▼                    │
//!          failure ◀── conversing ───────────────┘
//!                           │ exit, or left
//!                           ▼
//!                       exit status
//! ```

mod connecting;
mod conversation;
mod plan;
mod retry;

pub(crate) use conversation::SILENCE;
pub(crate) use plan::{SessionPlan, come_back};
pub(crate) use retry::ReattachTimer;

use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::LocalEvents;
use crate::local::terminal::{RawTerminal, remarks_are_read};
use crate::output::{Printer, ProgramOutput};
use crate::target::Target;
use connecting::ConnectOutcome;
use conversation::StreamEnd;
use minions_proto::channel::HostControl;
use minions_proto::exec_client::ExecClient;
use std::collections::VecDeque;

/// State of one program's session.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    target: &'a Target,
    printer: &'a Printer,
    plan: SessionPlan,
    local: LocalEvents,
    output: ProgramOutput,
    retry: ReattachTimer,
    /// The program has an id, so that a lost stream can be re-attached.
    has_id: bool,
    /// State of the stream; `None` until the first reply.
    client: Option<ExecClient>,
    /// Control messages to be sent.
    controls: VecDeque<HostControl>,
    /// A first SIGINT has been passed on to the program. The next one ends minionsctl.
    interrupted: bool,
    /// Some of the program's output was lost.
    incomplete: bool,
    /// The local terminal, while the program uses it.
    terminal: Option<RawTerminal>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        target: &'a Target,
        printer: &'a Printer,
        plan: SessionPlan,
    ) -> Result<Self, Failure> {
        Ok(Self {
            local: LocalEvents::new(plan.interactive, plan.raw, plan.tty)?,
            output: ProgramOutput::start()?,
            retry: ReattachTimer::new(plan.patience()),
            has_id: true,
            target,
            printer,
            plan,
            client: None,
            controls: VecDeque::new(),
            interrupted: false,
            incomplete: false,
            terminal: None,
        })
    }

    /// Runs until the program ends, the user leaves, or the program is lost.
    pub(crate) async fn run(mut self) -> Result<ExitStatus, Failure> {
        loop {
            let (attached, mut link) = match self.connect().await? {
                ConnectOutcome::Stream(attached, link) => (attached, link),
                ConnectOutcome::Left(status) => {
                    self.remark_on_leaving();
                    return Ok(status);
                }
            };
            self.adopt(&attached)?;
            match self.converse(&mut link).await? {
                StreamEnd::Status(status) => return Ok(status),
                StreamEnd::Leave(status) => {
                    link.leave().await;
                    self.remark_on_leaving();
                    return status;
                }
                StreamEnd::Lost(why) => self.lost(why)?,
            }
        }
    }

    fn remark_on_leaving(&self) {
        match &self.client {
            Some(client) if self.plan.outlives_us => {
                let SessionPlan { come_back, .. } = &self.plan;
                let id = client.id();
                self.remark(&format!("the program continues; re-attach with `{come_back} {id}`"));
            }
            _ if self.terminal.is_some() => self.remark("minionsctl: disconnected"),
            _ => {}
        }
    }

    fn remark(&self, text: &str) {
        self.remarks(&[text]);
    }

    fn remarks(&self, lines: &[&str]) {
        if self.terminal.is_some() {
            self.printer.remark_in_between(lines);
        } else {
            lines.iter().for_each(|line| self.printer.remark(line));
        }
    }

    /// Prints a remark if standard error is a terminal, so that it does not end up in a log.
    fn remark_to_people(&self, text: &str) {
        if remarks_are_read() {
            self.remark(text);
        }
    }
}
