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

mod conversation;
mod retry;

use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::{self, Link, LinkError, Opening};
use crate::local::terminal::{RawTerminal, remarks_are_read};
use crate::local::{Happened, Local};
use crate::output::{Printer, ProgramOutput};
use crate::target::Target;
use conversation::End;
use minions_api::ErrorCode;
use minions_api::exec::AttachRequest;
use minions_proto::channel::{HostControl, OutputStream};
use minions_proto::exec_client::ExecClient;
use minions_proto::message::{ExecAttached, REATTACH_GRACE};
use retry::Retry;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::timeout_at;

/// For a program that goes on without us, if the user doesn't say.
const DETACHED_PATIENCE: Duration = Duration::from_secs(60);

/// What a session is to be like.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How the stream begins.
    pub(crate) opening: Opening,
    /// Whether the id in it is ours, and may be left out for an agent that can't honour it.
    pub(crate) minted: bool,
    /// Whether our input is the program's.
    pub(crate) interactive: bool,
    /// Whether the program has a terminal.
    pub(crate) tty: bool,
    /// Whether ours passes every key on to it.
    pub(crate) raw: bool,
    /// Whether the program goes on when we go.
    pub(crate) outlives_us: bool,
    /// How to come back to it, before its id.
    pub(crate) come_back: String,
    /// The user's own limit.
    pub(crate) timeout: Option<Duration>,
}

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
    /// While the program has our terminal.
    terminal: Option<RawTerminal>,
}

/// What connecting comes to.
enum Connected {
    Stream(ExecAttached, Link),
    /// The user doesn't want to wait for it.
    Left(ExitStatus),
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        target: &'a Target,
        printer: &'a Printer,
        plan: Plan,
    ) -> Result<Self, Failure> {
        let patience = if plan.outlives_us {
            plan.timeout.unwrap_or(DETACHED_PATIENCE)
        } else {
            REATTACH_GRACE
        };
        Ok(Self {
            local: Local::new(plan.interactive, plan.raw, plan.tty)?,
            output: ProgramOutput::start()?,
            retry: Retry::new(patience),
            has_id: true,
            target,
            printer,
            plan,
            client: None,
            controls: VecDeque::new(),
            interrupted: false,
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

    /// Opens the stream: for the first time, or as often as it takes.
    async fn connect(&mut self) -> Result<Connected, Failure> {
        let room = self.client.as_ref().map_or(0, ExecClient::input_room);
        let Self { target, plan, retry, local, client, .. } = self;
        let attempts = attempts(target, plan, retry);
        tokio::pin!(attempts);
        let mut room = room;
        loop {
            let happened = tokio::select! {
                opened = &mut attempts => {
                    let (attached, link) = opened?;
                    return Ok(Connected::Stream(attached, link));
                }
                happened = local.next(room) => happened,
            };
            match (happened, client.as_mut()) {
                (Happened::Signal(number), _) => {
                    return Ok(Connected::Left(ExitStatus::by_signal(number)));
                }
                (Happened::Leave, _) => return Ok(Connected::Left(ExitStatus::Ours)),
                (Happened::InputFailed(error), _) => return Err(Failure::Input(error)),
                (Happened::Input(bytes), Some(client)) => {
                    client.push_input(bytes);
                    room = client.input_room();
                }
                (Happened::InputEnded, Some(client)) => client.close_input(),
                // Its present size is told to a terminal anyway, as soon as there is a stream.
                (Happened::Resized | Happened::Help, _) => {}
                // Without a client there is no room.
                (Happened::Input(_) | Happened::InputEnded, None) => {}
            }
        }
    }

    /// Goes on where the last stream broke off, or begins.
    fn adopt(&mut self, attached: &ExecAttached) -> Result<(), Failure> {
        if let Some(client) = &mut self.client {
            client.resume(attached)?;
            self.remark_to_people("minionsctl: reattached");
        } else {
            if attached.stdin_closed {
                // Then a key means nothing to the program, and Ctrl-C has to be a signal.
                self.local.stop_input();
                self.plan.raw = false;
            }
            self.has_id = self.plan.has_id();
            self.client = Some(ExecClient::new(attached));
            if self.plan.raw {
                self.terminal = Some(RawTerminal::take()?);
            }
        }
        Ok(())
    }

    /// The stream is gone. Looks whether another may be sought.
    fn lost(&mut self, why: LinkError) -> Result<(), Failure> {
        let Some(client) = self.client.as_ref().filter(|_| why.is_transient() && self.has_id)
        else {
            return Err(Failure::Link(why));
        };
        self.plan.opening = Opening::Attach(AttachRequest {
            attach: client.id().to_string(),
            stdout_offset: Some(client.received(OutputStream::Stdout)),
            stderr_offset: Some(client.received(OutputStream::Stderr)),
        });
        // Where we are is told by the attach, the size again behind it; a signal is told once.
        self.controls.retain(|control| matches!(control, HostControl::Signal { .. }));
        if !self.retry.is_on() {
            self.remark_to_people("minionsctl: connection lost, reattaching…");
        }
        self.retry.failed(Failure::Link(why));
        Ok(())
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

/// Attempts to open the stream until one succeeds, or no other can.
async fn attempts(
    target: &Target,
    plan: &mut Plan,
    retry: &mut Retry,
) -> Result<(ExecAttached, Link), Failure> {
    loop {
        retry.pause().await?;
        let opened = match retry.deadline() {
            None => link::open(target, &plan.opening).await,
            Some(deadline) => match timeout_at(deadline, link::open(target, &plan.opening)).await {
                Ok(opened) => opened,
                Err(_) => return Err(retry.give_up()),
            },
        };
        let failure = match opened {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        if plan.leave_out_id(&failure) {
            continue;
        }
        // Before the first reply only what may have started the program is worth a second attempt:
        // with the same id, it can't start it twice.
        let again = if retry.is_on() { failure.is_transient() } else { failure.may_have_started() };
        if !again || !plan.has_id() {
            return Err(match plan.opening {
                Opening::Attach(_) if retry.is_on() => Failure::NoWayBack(Box::new(failure)),
                Opening::Attach(_) | Opening::Start(_) => failure,
            });
        }
        retry.failed(failure);
    }
}

/// The command that comes back to a program there, before its id.
pub(crate) fn come_back(target: &Target) -> String {
    match target {
        Target::Vm(_, vm) => format!("minionsctl attach {vm}"),
        Target::Agent(socket) => format!("minionsctl --socket {} attach", socket.display()),
    }
}

impl Plan {
    fn has_id(&self) -> bool {
        match &self.opening {
            Opening::Start(request) => request.id.is_some(),
            Opening::Attach(_) => true,
        }
    }

    /// For an agent that knows no ids, if the user didn't ask for one either.
    fn leave_out_id(&mut self, failure: &Failure) -> bool {
        let refused = matches!(
            failure,
            Failure::Problem(problem)
                if problem.code == ErrorCode::AgentTooOld && problem.field.as_deref() == Some("id")
        );
        match &mut self.opening {
            Opening::Start(request) if refused && self.minted => request.id.take().is_some(),
            _ => false,
        }
    }
}
