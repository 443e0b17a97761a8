//! Running programs.
//!
//! ```text
//!  lookup ─▶ start ─▶ Process (own group) ── exit ──▶ drain ≤ 100 ms ─▶ fit ─▶ reply
//!                        │  │ stdout, stderr ─▶ Capture (head + tail, ≤ 1 MiB each)
//!                        │ time is up
//!                        ▼
//!                      TERM to the group, 2 s, KILL to the group
//! ```
//!
//! A program ends when *it* ends, not when the last holder of its pipes does: `sh -c 'sleep 300 &'`
//! is over at once, and the sleep lives on. What such a left-over writes after the drain meets a
//! closed pipe.

mod capture;
mod fit;

mod json_text;
mod lookup;
mod process;
mod start;

use capture::Capture;
use minions_proto::Invalid;
use minions_proto::collect::HeadTail;
use minions_proto::frame::EncodeError;
use minions_proto::message::{Exec, ExecReply, Outcome};
use process::Process;
use std::io;
use std::time::Duration;
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// Programs at once. Each may hold 2 MiB of output.
const MAX_RUNNING: usize = 64;

/// The longest time limit, 24 h: what runs longer is a service and wants a supervisor.
const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// After the exit, for others that still hold the pipes to close them.
const DRAIN: Duration = Duration::from_millis(100);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{MAX_RUNNING} programs are running already; try again later")]
    Busy,
    #[error("{command:?} not found")]
    NotFound { command: String },
    #[error("{path:?} can't be executed")]
    NotExecutable { path: String, source: io::Error },
    #[error("{path:?} is there, but what it needs to run is not: {missing}")]
    NoInterpreter { path: String, missing: String, source: io::Error },
    #[error("{path:?} can't be started")]
    Start { path: String, source: io::Error },
    #[error("no standard input: /dev/null can't be opened")]
    NoNullDevice(#[source] io::Error),
    #[error("the program's end can't be waited for")]
    Wait(#[source] io::Error),
    #[error("the agent is shutting down")]
    Interrupted,
    #[error("result can't be encoded")]
    Encode(#[from] EncodeError),
}

impl ExecError {
    /// The kernel's error number, if it was the kernel that said no.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::NotExecutable { source, .. }
            | Self::NoInterpreter { source, .. }
            | Self::Start { source, .. }
            | Self::NoNullDevice(source)
            | Self::Wait(source) => source.raw_os_error(),
            Self::NotFound { .. } => Some(rustix::io::Errno::NOENT.raw_os_error()),
            Self::Invalid(_) | Self::Busy | Self::Interrupted | Self::Encode(_) => None,
        }
    }
}

/// Runs programs, so many at a time.
#[derive(Debug)]
pub(crate) struct Executor {
    slots: Semaphore,
    default_timeout: Duration,
}

impl Executor {
    pub(crate) fn new(default_timeout: Duration) -> Self {
        Self {
            slots: Semaphore::new(MAX_RUNNING),
            default_timeout: default_timeout.min(MAX_TIMEOUT),
        }
    }

    /// Runs one program to its end, and gives a reply that fits a frame.
    ///
    /// Dropping the future kills the program's process group.
    pub(crate) async fn run(&self, exec: Exec) -> Result<ExecReply, ExecError> {
        exec.validate()?;
        let limit = self.limit(exec.timeout_ms)?;
        let _slot = self.slots.try_acquire().map_err(|_| ExecError::Busy)?;
        let started = Instant::now();
        let mut process = start::start(exec).await?;
        let mut output = Output::of(&mut process);
        let outcome = output.run(&mut process, started + limit).await.map_err(ExecError::Wait)?;
        let duration = started.elapsed();
        output.drain().await;
        output.reply(&outcome, duration)
    }

    fn limit(&self, timeout_ms: Option<u64>) -> Result<Duration, Invalid> {
        let limit = timeout_ms.map_or(self.default_timeout, Duration::from_millis);
        if limit > MAX_TIMEOUT {
            let reason = format!("is over the limit of {} ms", MAX_TIMEOUT.as_millis());
            return Err(Invalid::new("timeout_ms", reason));
        }
        Ok(limit)
    }
}

/// Both of a program's streams.
struct Output {
    stdout: Capture<ChildStdout>,
    stderr: Capture<ChildStderr>,
}

impl Output {
    fn of(process: &mut Process) -> Self {
        let (stdout, stderr) = process.take_output();
        Self { stdout: Capture::new(stdout), stderr: Capture::new(stderr) }
    }

    /// Reads both streams until the program ends by itself or is ended at `deadline`.
    async fn run(&mut self, process: &mut Process, deadline: Instant) -> io::Result<Outcome> {
        match self.read_while(timeout_at(deadline, process.wait())).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.read_while(process.terminate()).await;
                Ok(Outcome::TimedOut)
            }
        }
    }

    /// Keeps the pipes empty until `work` is done: a program that blocks on a full pipe never ends.
    async fn read_while<W: Future>(&mut self, work: W) -> W::Output {
        tokio::pin!(work);
        loop {
            // Not biased: a program that never stops writing must not hide its own end.
            tokio::select! {
                done = &mut work => return done,
                () = self.stdout.read(), if self.stdout.is_open() => {}
                () = self.stderr.read(), if self.stderr.is_open() => {}
            }
        }
    }

    /// Reads what is in the pipes, to their end if that comes soon.
    async fn drain(&mut self) {
        let to_the_end =
            async { tokio::join!(self.stdout.read_to_end(), self.stderr.read_to_end()) };
        // Late: somebody else holds a pipe, and need not be waited for.
        let _ = timeout(DRAIN, to_the_end).await;
    }

    fn reply(self, outcome: &Outcome, duration: Duration) -> Result<ExecReply, ExecError> {
        let (stdout, stderr): (HeadTail, HeadTail) = (self.stdout.into(), self.stderr.into());
        let reply = ExecReply {
            exit_code: outcome.exit_code(),
            stdout: String::new(),
            stderr: String::new(),
            stdout_bytes: Some(stdout.total()),
            stderr_bytes: Some(stderr.total()),
            stdout_truncated: Some(false),
            stderr_truncated: Some(false),
            outcome: Some(outcome.clone()),
            duration_ms: Some(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        };
        Ok(fit::fit(reply, stdout.finish(), stderr.finish())?)
    }
}
