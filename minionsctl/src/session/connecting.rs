//! Opening a stream, and re-attaching to it.

use super::plan::SessionPlan;
use super::retry::ReattachTimer;
use super::state::Session;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::link::{self, ExecLink, FirstMessage};
use crate::link_error::LinkError;
use crate::local::LocalEvent;
use crate::local::terminal::RawTerminal;
use crate::target::Target;
use minions_api::exec::AttachRequest;
use minions_proto::channel::{HostControl, OutputStream};
use minions_proto::exec_client::ExecClient;
use minions_proto::message::ExecAttached;
use tokio::time::{Instant, timeout_at};

/// Result of connecting.
pub(super) enum ConnectOutcome {
    Stream(ExecAttached, ExecLink),
    /// The user left before there was a stream.
    Left(ExitStatus),
}

impl Session<'_> {
    /// Opens the stream for the first time or after a loss, with retries, and handles local events meanwhile.
    pub(super) async fn connect(&mut self) -> Result<ConnectOutcome, Failure> {
        let room = self.client.as_ref().map_or(0, ExecClient::input_room);
        let Self { target, plan, retry, local, client, .. } = self;
        let attempts = attempts(target, plan, retry);
        tokio::pin!(attempts);
        let mut room = room;
        loop {
            let happened = tokio::select! {
                opened = &mut attempts => {
                    let (attached, link) = opened?;
                    return Ok(ConnectOutcome::Stream(attached, link));
                }
                happened = local.next(room) => happened,
            };
            match (happened, client.as_mut()) {
                (LocalEvent::Signal(number), _) => {
                    return Ok(ConnectOutcome::Left(ExitStatus::by_signal(number)));
                }
                (LocalEvent::Leave, _) => return Ok(ConnectOutcome::Left(ExitStatus::Ours)),
                (LocalEvent::InputFailed(error), _) => return Err(Failure::Input(error)),
                (LocalEvent::Input(bytes), Some(client)) => {
                    client.push_input(bytes);
                    room = client.input_room();
                }
                (LocalEvent::InputEnded, Some(client)) => client.close_input(),
                // The current size is sent as soon as there is a stream.
                (LocalEvent::Resized | LocalEvent::Help, _) => {}
                // Without a client there is no room for input, so none is read.
                (LocalEvent::Input(_) | LocalEvent::InputEnded, None) => {}
            }
        }
    }

    /// Resumes at the offsets of the last stream, or begins the session.
    pub(super) fn adopt(&mut self, attached: &ExecAttached) -> Result<(), Failure> {
        // Attempts are useful for as long as the program waits for them.
        if !self.plan.outlives_us {
            self.retry.set_patience(attached.reattach_grace());
        }
        if let Some(client) = &mut self.client {
            client.resume(attached)?;
            self.remark_to_people("minionsctl: re-attached");
        } else {
            if attached.stdin_closed {
                // The program takes no input, so Ctrl-C must remain a local signal.
                self.local.stop_input();
                self.plan.raw = false;
            }
            self.has_id = self.plan.has_id();
            self.client = Some(ExecClient::new(attached, Instant::now().into_std())?);
            if self.plan.raw {
                self.terminal = Some(RawTerminal::take()?);
            }
        }
        Ok(())
    }

    /// Records the loss of the stream, and prepares to re-attach.
    ///
    /// # Errors
    ///
    /// [`Failure::Link`] if the loss is permanent or the program has no id.
    pub(super) fn lost(&mut self, why: LinkError) -> Result<(), Failure> {
        let Some(client) = self.client.as_ref().filter(|_| why.is_transient() && self.has_id)
        else {
            return Err(Failure::Link(why));
        };
        self.plan.opening = FirstMessage::Attach(AttachRequest {
            attach: client.id().to_string(),
            stdout_offset: Some(client.received(OutputStream::Stdout)),
            stderr_offset: Some(client.received(OutputStream::Stderr)),
        });
        // The attach request carries the offsets, and the size is sent again after it. Only signals must be kept.
        self.controls.retain(|control| matches!(control, HostControl::Signal { .. }));
        if !self.retry.is_on() {
            self.remark_to_people("minionsctl: connection lost, re-attaching…");
        }
        self.retry.failed(Failure::Link(why));
        Ok(())
    }
}

/// Tries to open the stream until an attempt succeeds, fails permanently, or the deadline passes.
async fn attempts(
    target: &Target,
    plan: &mut SessionPlan,
    retry: &mut ReattachTimer,
) -> Result<(ExecAttached, ExecLink), Failure> {
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
        // Before the first reply, retry only if the program may have been started: the same id prevents a
        // second start.
        let again = if retry.is_on() { failure.is_transient() } else { failure.may_have_started() };
        if !again || !plan.has_id() {
            return Err(match plan.opening {
                FirstMessage::Attach(_) if retry.is_on() => Failure::NoWayBack(Box::new(failure)),
                FirstMessage::Attach(_) | FirstMessage::Start(_) => failure,
            });
        }
        retry.failed(failure);
    }
}
