//! A program on a channel: its exec stream, which is re-attached when it breaks, and its end.

use super::channel_output::{ChannelOutput, ProgramEnd};
use super::input::ChannelInput;
use super::stream::{StreamEnd, StreamState};
use crate::failure::Failure;
use crate::link::{self, ExecLink, FirstMessage};
use crate::link_error::LinkError;
use crate::output::failure_line;
use crate::session::ReattachTimer;
use crate::target::Target;
use minions_proto::message::{ExecAttached, REATTACH_GRACE};
use std::sync::Arc;
use tokio::time::timeout_at;

/// Program on a channel.
#[derive(Debug)]
pub(super) struct ChannelProgram {
    target: Arc<Target>,
    opening: FirstMessage,
    input: Arc<ChannelInput>,
    output: ChannelOutput,
    stream: StreamState,
    retry: ReattachTimer,
}

impl ChannelProgram {
    pub(super) fn new(
        target: Arc<Target>,
        opening: FirstMessage,
        input: Arc<ChannelInput>,
        output: ChannelOutput,
    ) -> Self {
        let retry = ReattachTimer::new(REATTACH_GRACE);
        Self { target, opening, input, output, stream: StreamState::default(), retry }
    }

    /// Runs the program until it ends or the client leaves, and closes the channel.
    pub(super) async fn run(mut self) {
        let end = match self.run_streams().await {
            Ok(None) => return,
            Ok(Some(end)) => end,
            Err(failure) => failed(&failure),
        };
        self.input.discard();
        tokio::select! {
            // An error means that the connection to the client has ended.
            _ = self.output.finish(end) => {}
            () = self.input.closed() => {}
        }
    }

    /// Returns the end of the program; `None` if the client has left.
    async fn run_streams(&mut self) -> Result<Option<ProgramEnd>, Failure> {
        loop {
            let Some((attached, mut link)) = self.connect().await? else { return Ok(None) };
            self.stream.adopt(&attached)?;
            self.retry.set_patience(attached.reattach_grace());
            let Self { stream, input, output, retry, .. } = self;
            match stream.converse(&mut link, input, output, retry).await? {
                StreamEnd::Program(end) => return Ok(Some(end)),
                StreamEnd::ClientLeft => {
                    link.leave().await;
                    return Ok(None);
                }
                StreamEnd::Lost(why) => self.lost(why)?,
            }
        }
    }

    /// Opens the stream; returns `None` if the client leaves first.
    async fn connect(&mut self) -> Result<Option<(ExecAttached, ExecLink)>, Failure> {
        let Self { target, opening, retry, input, stream, .. } = self;
        let opened = open(target, opening, retry);
        tokio::pin!(opened);
        loop {
            let event = tokio::select! {
                opened = &mut opened => return opened.map(Some),
                event = input.next_control() => event,
            };
            if !stream.control(event) {
                return Ok(None);
            }
        }
    }

    /// Prepares to re-attach.
    fn lost(&mut self, why: LinkError) -> Result<(), Failure> {
        let Some(request) = self.stream.reattach().filter(|_| why.is_transient()) else {
            return Err(Failure::Link(why));
        };
        self.opening = FirstMessage::Attach(request);
        self.retry.failed(Failure::Link(why));
        Ok(())
    }
}

/// Opens the stream, or opens it again after it was lost, with retries.
async fn open(
    target: &Target,
    opening: &FirstMessage,
    retry: &mut ReattachTimer,
) -> Result<(ExecAttached, ExecLink), Failure> {
    loop {
        retry.pause().await?;
        let opened = match retry.deadline() {
            None => link::open(target, opening).await,
            Some(deadline) => match timeout_at(deadline, link::open(target, opening)).await {
                Ok(opened) => opened,
                Err(_) => return Err(retry.give_up()),
            },
        };
        let failure = match opened {
            Ok(opened) => return Ok(opened),
            Err(failure) => failure,
        };
        // The id of the request prevents a second start.
        match (retry.is_on(), opening) {
            (true, _) if failure.is_transient() => retry.failed(failure),
            (false, _) if failure.may_have_started() => retry.failed(failure),
            (true, FirstMessage::Attach(_)) => return Err(Failure::NoWayBack(Box::new(failure))),
            (true, FirstMessage::Start(_)) | (false, _) => return Err(failure),
        }
    }
}

/// Converts a failure. If the shell is missing or cannot be executed, the exit status is 127 or 126, as in a shell.
fn failed(failure: &Failure) -> ProgramEnd {
    let status = match failure.exit_status(true).code() {
        status @ (126 | 127) => Some(status.into()),
        _ => None,
    };
    ProgramEnd::Failed { message: failure_line(failure), status }
}
