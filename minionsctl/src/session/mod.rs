//! A program elsewhere as if it were here: its output, our input, our signals, and a stream between
//! that may break and be found again.
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

pub(crate) use plan::{Plan, come_back};

use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::local::Local;
use crate::local::terminal::{RawTerminal, remarks_are_read};
use crate::output::{Printer, ProgramOutput};
use crate::target::Target;
use connecting::Connected;
use conversation::End;
use minions_proto::channel::HostControl;
use minions_proto::exec_client::ExecClient;
use retry::Retry;
use std::collections::VecDeque;

/// One program.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    target: &'a Target,
    printer: &'a Printer,
    plan: Plan,
    local: Local,
    output: ProgramOutput,
    retry: Retry,
    /// Whether the agent can find it again.
    has_id: bool,
    /// Known from the first reply on.
    client: Option<ExecClient>,
    /// What the agent is still to be told.
    controls: VecDeque<HostControl>,
    /// Whether the program has had an INT from us. The next one is for us.
    interrupted: bool,
    /// Whether we have missed some of its output.
    incomplete: bool,
    /// While the program has our terminal.
    terminal: Option<RawTerminal>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        target: &'a Target,
        printer: &'a Printer,
        plan: Plan,
    ) -> Result<Self, Failure> {
        Ok(Self {
            local: Local::new(plan.interactive, plan.raw, plan.tty)?,
            output: ProgramOutput::start()?,
            retry: Retry::new(plan.patience()),
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

    /// Until the program ends, or we leave it, or it is lost.
    pub(crate) async fn run(mut self) -> Result<ExitStatus, Failure> {
        loop {
            let (attached, mut link) = match self.connect().await? {
                Connected::Stream(attached, link) => (attached, link),
                Connected::Left(status) => {
                    self.say_goodbye();
                    return Ok(status);
                }
            };
            self.adopt(&attached)?;
            match self.converse(&mut link).await? {
                End::Status(status) => return Ok(status),
                End::Leave(status) => {
                    link.leave().await;
                    self.say_goodbye();
                    return status;
                }
                End::Lost(why) => self.lost(why)?,
            }
        }
    }

    fn say_goodbye(&self) {
        match &self.client {
            Some(client) if self.plan.outlives_us => {
                let Plan { come_back, .. } = &self.plan;
                self.remark(&format!("it goes on; `{come_back} {}` comes back", client.id()));
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

    /// Only where it doesn't get into somebody's log.
    fn remark_to_people(&self, text: &str) {
        if remarks_are_read() {
            self.remark(text);
        }
    }
}
