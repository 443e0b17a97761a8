//! State of a session, and its remarks to the user.

use super::plan::SessionPlan;
use super::retry::ReattachTimer;
use crate::failure::Failure;
use crate::local::LocalEvents;
use crate::local::terminal::{RawTerminal, remarks_are_read};
use crate::output::{Printer, ProgramOutput};
use crate::target::Target;
use minions_proto::channel::HostControl;
use minions_proto::exec_client::ExecClient;
use std::collections::VecDeque;

/// State of one program's session.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(super) target: &'a Target,
    pub(super) printer: &'a Printer,
    pub(super) plan: SessionPlan,
    pub(super) local: LocalEvents,
    pub(super) output: ProgramOutput,
    pub(super) retry: ReattachTimer,
    /// The program has an id, so that a lost stream can be re-attached.
    pub(super) has_id: bool,
    /// State of the stream; `None` until the first reply.
    pub(super) client: Option<ExecClient>,
    /// Control messages to be sent.
    pub(super) controls: VecDeque<HostControl>,
    /// A first SIGINT has been passed on to the program. The next one ends minionsctl.
    pub(super) interrupted: bool,
    /// Some of the program's output was lost.
    pub(super) incomplete: bool,
    /// The local terminal, while the program uses it.
    pub(super) terminal: Option<RawTerminal>,
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

    pub(super) fn remark_on_leaving(&self) {
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

    pub(super) fn remark(&self, text: &str) {
        self.remarks(&[text]);
    }

    pub(super) fn remarks(&self, lines: &[&str]) {
        if self.terminal.is_some() {
            self.printer.remark_in_between(lines);
        } else {
            lines.iter().for_each(|line| self.printer.remark(line));
        }
    }

    /// Prints a remark if standard error is a terminal, so that it does not end up in a log.
    pub(super) fn remark_to_people(&self, text: &str) {
        if remarks_are_read() {
            self.remark(text);
        }
    }
}
