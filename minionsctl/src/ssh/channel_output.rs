//! Output and end of a program, as messages of a channel.

use bytes::Bytes;
use minions_proto::channel::OutputStream;
use minions_proto::message::{Outcome, Signal};
use russh::server::{Handle, Msg};
use russh::{ChannelId, ChannelWriteHalf, Error, Sig};

/// Data type code of standard error (RFC 4254, section 5.2).
const STDERR: u32 = 1;

/// Sending side of a channel.
#[derive(Debug)]
pub(super) struct ChannelOutput {
    channel: ChannelWriteHalf<Msg>,
    connection: Handle,
}

/// End of a program, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProgramEnd {
    /// The program exited with this status.
    Exited(u32),
    /// A signal ended the program.
    Signaled {
        /// Name of the signal, without `SIG`.
        signal: String,
        /// True if the program dumped core.
        core: bool,
    },
    /// The program did not start, or its end is unknown. Without an exit status, the client ends with 255.
    Failed {
        /// Message to the user.
        message: String,
        /// Exit status that a shell would use for this failure, if there is one.
        status: Option<u32>,
    },
}

impl ProgramEnd {
    /// Creates a failure without an exit status.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), status: None }
    }

    /// Converts the outcome of an exec.
    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            // A value outside of 0 to 255 comes from a broken peer, and must not be reported as a success.
            Outcome::Exited { code } => match u8::try_from(*code) {
                Ok(code) => Self::Exited(code.into()),
                Err(_) => Self::failed(format!("the agent reported the exit code {code}")),
            },
            Outcome::Signaled { signal, core, reason: _ } => match Signal::from_number(*signal) {
                Some(name) => Self::Signaled { signal: name.to_string(), core: *core },
                None => Self::failed(format!("the agent reported the signal {signal}")),
            },
            Outcome::TimedOut => Self::failed("the program reached its time limit"),
            Outcome::FailedToStart { .. } => Self::failed("the program could not be started"),
            Outcome::Lost { reason } => {
                Self::failed(format!("the end of the program is unknown: {reason}"))
            }
        }
    }
}

impl ChannelOutput {
    pub(super) fn new(channel: ChannelWriteHalf<Msg>, connection: Handle) -> Self {
        Self { channel, connection }
    }

    /// Returns the id of the channel.
    pub(super) fn id(&self) -> ChannelId {
        self.channel.id()
    }

    /// Answers the client's request on the channel.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) async fn answer(&self, accepted: bool) -> Result<(), Error> {
        let (connection, id) = (&self.connection, self.channel.id());
        let sent = match accepted {
            true => connection.channel_success(id).await,
            false => connection.channel_failure(id).await,
        };
        sent.map_err(|()| Error::SendError)
    }

    /// Sends output, and waits until the client's window has room for it.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub(super) async fn send(&self, stream: OutputStream, bytes: Bytes) -> Result<(), Error> {
        match stream {
            OutputStream::Stdout => self.channel.data_bytes(bytes).await,
            OutputStream::Stderr => self.channel.extended_data_bytes(STDERR, bytes).await,
        }
    }

    /// Sends the end of the output.
    pub(super) async fn end(&self) -> Result<(), Error> {
        self.channel.eof().await
    }

    /// Closes the channel.
    pub(super) async fn close(&self) -> Result<(), Error> {
        self.channel.close().await
    }

    /// Sends the end of the program, and closes the channel. The output must have been sent.
    pub(super) async fn finish(&self, end: ProgramEnd) -> Result<(), Error> {
        match end {
            ProgramEnd::Exited(status) => self.channel.exit_status(status).await?,
            ProgramEnd::Signaled { signal, core } => {
                let (id, signal) = (self.channel.id(), Sig::Custom(signal));
                let sent = self
                    .connection
                    .exit_signal_request(id, signal, core, String::new(), String::new())
                    .await;
                sent.map_err(|()| Error::SendError)?;
            }
            ProgramEnd::Failed { message, status } => {
                // A terminal in raw mode needs the carriage return to continue in the first column.
                let line = Bytes::from(format!("minionsctl: {message}\r\n"));
                self.send(OutputStream::Stderr, line).await?;
                if let Some(status) = status {
                    self.channel.exit_status(status).await?;
                }
            }
        }
        self.end().await?;
        self.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_exit_with_a_valid_code_has_an_exit_status() {
        assert_eq!(ProgramEnd::of(&Outcome::Exited { code: 255 }), ProgramEnd::Exited(255));
        for outcome in [
            Outcome::Exited { code: 256 },
            Outcome::Exited { code: -1 },
            Outcome::Signaled { signal: 0, core: false, reason: None },
            Outcome::TimedOut,
            Outcome::Lost { reason: "the guest was reset".into() },
        ] {
            let end = ProgramEnd::of(&outcome);
            assert!(matches!(end, ProgramEnd::Failed { status: None, .. }), "{outcome:?}: {end:?}");
        }
        let killed = Outcome::Signaled { signal: 9, core: true, reason: None };
        let end = ProgramEnd::Signaled { signal: "KILL".into(), core: true };
        assert_eq!(ProgramEnd::of(&killed), end);
    }
}
