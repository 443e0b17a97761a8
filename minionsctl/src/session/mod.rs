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
mod state;

pub(crate) use conversation::SILENCE;
pub(crate) use plan::{SessionPlan, come_back};
pub(crate) use retry::ReattachTimer;
pub(crate) use state::Session;

use crate::exit::ExitStatus;
use crate::failure::Failure;
use connecting::ConnectOutcome;
use conversation::StreamEnd;

impl Session<'_> {
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
}
