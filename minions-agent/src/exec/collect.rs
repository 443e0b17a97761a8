//! The base `exec`: starts a program, collects its output, and forgets it.

use super::error::ExecError;
use super::fit::fit;
use super::launch::InputKind;
use super::tail::{ExecTail, TailEvent};
use super::{Executor, ProgramOrigin, Retention};
use crate::boot_clock::milliseconds;
use bytes::BytesMut;
use minions_proto::Invalid;
use minions_proto::channel::{Ended, HostControl, OutputStream};
use minions_proto::collect::HeadTail;
use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::{Exec, ExecReply, ExecStart, OnDisconnect, Outcome};
use tokio::sync::watch;

/// Bytes kept of the head, and of the tail, of each stream. Together they fill a frame, so a reply could not
/// hold more.
const KEEP: usize = MAX_FRAME_LEN / 2;

/// Leaves the exec when dropped: no client re-attaches to a base exec.
struct LeaveOnDrop(super::tail::ClientHandle);

impl Drop for LeaveOnDrop {
    fn drop(&mut self) {
        // Leaving is never refused.
        let _ = self.0.control(HostControl::Leave);
    }
}

impl Executor {
    /// Runs a program to its end, and returns a reply that fits a frame.
    ///
    /// Dropping the future ends the program and everything that it started.
    pub(crate) async fn run(&self, exec: Exec) -> Result<ExecReply, ExecError> {
        let start = self.collected(exec)?;
        let (_, tail) = self.begin(start, InputKind::Pipe, Retention::Forget).await?;
        let leaving = LeaveOnDrop(tail.handle());
        collect(tail, &leaving.0, std::future::pending()).await
    }

    /// Runs a hook to its end, as the agent's own user. If `stop` becomes true, ends it, and waits for its end. Otherwise
    /// as [`run`](Self::run).
    pub(crate) async fn run_hook(
        &self,
        hook: ExecStart,
        mut stop: watch::Receiver<bool>,
    ) -> Result<ExecReply, ExecError> {
        let begun = self.begin_from(ProgramOrigin::Hook, hook, InputKind::Pipe, Retention::Forget);
        let (_, tail) = begun.await?;
        let leaving = LeaveOnDrop(tail.handle());
        // The end of the sender also stops it.
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        collect(tail, &leaving.0, stopped).await
    }

    fn collected(&self, exec: Exec) -> Result<ExecStart, Invalid> {
        exec.validate()?;
        Ok(ExecStart {
            command: exec.command,
            args: exec.args,
            timeout_ms: Some(exec.timeout_ms.unwrap_or_else(|| milliseconds(self.default_timeout))),
            on_disconnect: OnDisconnect::Kill,
            ..ExecStart::default()
        })
    }
}

/// Collects the output up to the program's end, which is ordered when `stopped` is ready.
async fn collect(
    mut tail: ExecTail,
    handle: &super::tail::ClientHandle,
    stopped: impl Future<Output = ()>,
) -> Result<ExecReply, ExecError> {
    let (mut stdout, mut stderr) = (HeadTail::keeping(KEEP), HeadTail::keeping(KEEP));
    let mut buffer = BytesMut::new();
    tokio::pin!(stopped);
    let mut is_stopped = false;
    let ended = loop {
        buffer.clear();
        let event = tokio::select! {
            event = tail.next(&mut buffer) => event,
            () = &mut stopped, if !is_stopped => {
                is_stopped = true;
                handle.control(HostControl::Leave)?;
                continue;
            }
        };
        match event {
            TailEvent::Output(OutputStream::Stdout, _) => stdout.push(&buffer),
            TailEvent::Output(OutputStream::Stderr, _) => stderr.push(&buffer),
            TailEvent::Ended(ended) => break ended,
            TailEvent::Inherited(_) => {
                let reason = "the guest was restored or cloned while the program ran";
                return Err(ExecError::Lost(reason.to_owned()));
            }
            // No output is lost, because all of it is acknowledged here; and no client takes over, because none
            // knows the id.
            TailEvent::Gap { .. }
            | TailEvent::InputTaken(_)
            | TailEvent::Complete
            | TailEvent::TakenOver => {}
        }
        let ack = HostControl::Ack { stdout: stdout.total(), stderr: stderr.total() };
        handle.control(ack)?;
    };
    reply(ended, stdout, stderr)
}

fn reply(ended: Ended, stdout: HeadTail, stderr: HeadTail) -> Result<ExecReply, ExecError> {
    if let Outcome::Lost { reason } = ended.outcome {
        return Err(ExecError::Lost(reason));
    }
    let reply = ExecReply {
        exit_code: ended.outcome.exit_code(),
        stdout: String::new(),
        stderr: String::new(),
        stdout_bytes: Some(stdout.total()),
        stderr_bytes: Some(stderr.total()),
        stdout_truncated: Some(false),
        stderr_truncated: Some(false),
        outcome: Some(ended.outcome),
        duration_ms: Some(ended.usage.wall_ms),
    };
    fit(reply, stdout.finish(), stderr.finish()).map_err(ExecError::encode)
}
