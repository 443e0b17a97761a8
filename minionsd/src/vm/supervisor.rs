//! The one task that owns a VM's state.
//!
//! It keeps a connection of its own to the agent and asks it for its health: on a schedule, when
//! that connection dies (which is how the death of a VM shows at once), and when a call was turned
//! away or failed. What it learns it publishes; nobody else writes a VM's state.

use super::status::{Incarnation, VmStatus, backoff};
use crate::agent::{AgentConnection, Pool};
use minions_api::vm::{Failure, VmState};
use minions_api::{Timestamp, VmName};
use minions_proto::connection::ExchangeError;
use minions_proto::message::{Health, HealthCheck};
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long an agent has to answer a probe once it is connected.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// A connection that dies this soon after an answer was hardly worth making.
const EARLY: Duration = Duration::from_secs(1);

/// However many callers want to know: not more often than this.
const NUDGE_GAP: Duration = Duration::from_millis(100);

/// Supervises one VM until it is told to stop.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) name: VmName,
    pub(crate) pool: Pool,
    pub(crate) status: watch::Sender<VmStatus>,
    pub(crate) nudge: Arc<Notify>,
    pub(crate) stop: CancellationToken,
}

/// A failed probe.
struct ProbeError {
    failure: Failure,
    message: String,
}

impl Supervisor {
    /// Runs until `stop`; then closes the VM's connections.
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.supervise() => {}
        }
        self.pool.flush();
        tracing::info!(vm = %self.name, "vm gone");
    }

    async fn supervise(&self) {
        let mut own = None;
        let mut early_deaths = 0;
        loop {
            let probed = self.probe(&mut own).await;
            let probed_at = Instant::now();
            self.record(probed);
            self.pool.evict_idle();
            let pause = self.status.borrow().pause(rand::rng().random());
            tokio::select! {
                () = sleep(pause) => early_deaths = 0,
                () = self.nudged(probed_at) => {}
                () = died(&mut own) => {
                    own = None;
                    early_deaths = if probed_at.elapsed() < EARLY { early_deaths + 1 } else { 0 };
                    // A guest that answers and hangs up, over and over, gets no more of us than one
                    // that doesn't answer.
                    let pause = backoff(early_deaths, rand::rng().random());
                    sleep(pause).await;
                }
            }
        }
    }

    /// Asks the agent over the supervisor's own connection, made anew if there is none.
    async fn probe(&self, own: &mut Option<AgentConnection>) -> Result<Health, ProbeError> {
        let mut connection = match own.take() {
            Some(connection) => connection,
            None => self.pool.connector().connect().await.map_err(|error| ProbeError {
                failure: error.failure(),
                message: error.message(),
            })?,
        };
        let deadline = Instant::now() + PROBE_DEADLINE;
        let health = connection.call(&HealthCheck {}, deadline).await.map_err(probe_error)?;
        *own = Some(connection);
        Ok(health)
    }

    fn record(&self, probed: Result<Health, ProbeError>) {
        let before = self.status.borrow().state;
        let now = Timestamp::now();
        self.status.send_modify(|status| match probed {
            Ok(health) => {
                if status.answered(health, now) == Incarnation::Changed {
                    tracing::info!(vm = %self.name, "agent or guest restarted");
                    self.pool.flush();
                }
            }
            Err(ProbeError { failure, message }) => {
                status.failed(failure, message, now);
                self.pool.close_idle();
            }
        });
        let after = self.status.borrow();
        if after.state != before {
            self.announce(before, &after);
        }
    }

    fn announce(&self, before: VmState, after: &VmStatus) {
        let failure = after.reason.as_ref().map(|reason| tracing::field::debug(reason.failure));
        let (before, after) = (before.as_str(), after.state.as_str());
        tracing::info!(vm = %self.name, before, after, failure, "vm state");
    }

    /// Somebody wants to know, and enough time has passed since the last probe.
    async fn nudged(&self, probed_at: Instant) {
        self.nudge.notified().await;
        sleep_until(probed_at + NUDGE_GAP).await;
    }
}

/// Waits for the end of a connection, or for ever if there is none.
async fn died(own: &mut Option<AgentConnection>) {
    match own {
        Some(connection) => connection.dead().await,
        None => std::future::pending().await,
    }
}

fn probe_error(error: ExchangeError) -> ProbeError {
    let (failure, message) = match error {
        ExchangeError::Lost { .. } => {
            (Failure::AgentClosed, "the agent closed the connection".to_owned())
        }
        ExchangeError::TimedOut => {
            (Failure::AgentSilent, "the agent did not answer a health check within 1 s".to_owned())
        }
        ExchangeError::Protocol(error) => {
            (Failure::ProtocolError, format!("what the agent says is not the protocol: {error}"))
        }
        ExchangeError::Agent(_) => {
            (Failure::AgentError, "the agent answers a health check with an error".to_owned())
        }
        // A health check is 23 bytes long.
        ExchangeError::Encode(error) => (Failure::ProtocolError, error.to_string()),
    };
    ProbeError { failure, message }
}
