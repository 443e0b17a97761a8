//! Calls to one incarnation of a guest only: one boot of it, and one instance of its agent.
//!
//! The state that the registry knows may be older than the connection that carries a call. So the precondition is checked
//! by a health check on that connection, which leads to the same instance for its whole life.

use super::connector::AgentConnection;
use minions_proto::connection::ExchangeError;
use minions_proto::message::{AgentInfo, BootId, HealthCheck, InstanceId};
use sha2::{Digest, Sha256};
use std::io;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline for the health check that identifies the instance of the agent.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// Number of bytes of the digest in an id.
const DIGEST_LEN: usize = 16;

/// Identity of one run of the agent within one boot of its guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentInstance {
    boot_id: BootId,
    instance_id: InstanceId,
}

impl AgentInstance {
    pub(super) fn of(agent: &AgentInfo) -> Self {
        Self { boot_id: agent.boot_id.clone(), instance_id: agent.instance_id.clone() }
    }
}

/// Opaque id of an [`AgentInstance`], for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IncarnationId(String);

impl IncarnationId {
    /// Returns the id of an agent. It is a digest, because the guest chooses the texts that it is made of.
    pub(crate) fn of(agent: &AgentInfo) -> Self {
        let AgentInfo { boot_id, instance_id, .. } = agent;
        let mut digest = Sha256::new();
        for text in [boot_id.to_string(), instance_id.to_string()] {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
        Self(hex::encode(&digest.finalize()[..DIGEST_LEN]))
    }

    /// Takes an id that a client gave. An id that no agent can have matches none.
    pub(crate) fn given(id: String) -> Self {
        Self(id)
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Failure of a check.
#[derive(Debug)]
pub(super) enum PreconditionError {
    /// Another incarnation answered, or a base agent, which has no identity.
    Other(Option<IncarnationId>),
    /// An exchange failed: the check, or the call after it. The error tells whether the call was sent.
    Exchange(ExchangeError),
}

/// Checks that `connection` leads to the incarnation `only`.
pub(super) async fn check_incarnation(
    connection: &mut AgentConnection,
    only: &IncarnationId,
    deadline: Instant,
) -> Result<(), PreconditionError> {
    let agent = answering(connection, deadline).await.map_err(PreconditionError::Exchange)?;
    match agent.as_ref().map(IncarnationId::of) {
        Some(id) if id == *only => Ok(()),
        other => Err(PreconditionError::Other(other)),
    }
}

/// Instance of the agent at the end of a connection, compared with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstanceMatch {
    /// Exactly that instance.
    Same,
    /// The next generation of that instance: the guest was restored or cloned.
    Next,
    /// Another instance.
    Other,
}

/// Compares the instance to which `connection` leads with `only`.
pub(super) async fn check_instance(
    connection: &mut AgentConnection,
    only: &AgentInstance,
    deadline: Instant,
) -> Result<InstanceMatch, ExchangeError> {
    Ok(match answering(connection, deadline).await? {
        Some(agent) if AgentInstance::of(&agent) == *only => InstanceMatch::Same,
        Some(agent) if agent.parent_instance_id.as_ref() == Some(&only.instance_id) => {
            InstanceMatch::Next
        }
        Some(_) | None => InstanceMatch::Other,
    })
}

async fn answering(
    connection: &mut AgentConnection,
    deadline: Instant,
) -> Result<Option<AgentInfo>, ExchangeError> {
    let asked = deadline.min(Instant::now() + ASK_DEADLINE);
    let health = connection.call(&HealthCheck {}, asked).await;
    // Whatever the error, the call itself was not sent.
    health.map(|health| health.agent).map_err(|_| unsent())
}

/// Returns the error for a call whose connection failed before the call was sent.
fn unsent() -> ExchangeError {
    ExchangeError::Lost { sent: false, source: io::ErrorKind::BrokenPipe.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minions_proto::message::Features;

    fn id(boot_id: &str, instance_id: &str) -> String {
        let agent = AgentInfo {
            name: "a".into(),
            version: "1".into(),
            protocol: 2,
            features: Features::default(),
            boot_id: boot_id.into(),
            instance_id: instance_id.into(),
            allowed: None,
            generation: None,
            parent_instance_id: None,
            probe_count: None,
            restore: None,
        };
        IncarnationId::of(&agent).into_text()
    }

    #[test]
    fn an_id_depends_on_both_parts_and_fits_a_header_whatever_the_guest_reports() {
        assert_eq!(id("boot", "one"), id("boot", "one"));
        assert_ne!(id("boot", "one"), id("boot", "two"));
        assert_ne!(id("boot", "one"), id("other", "one"));
        assert_ne!(id("ab", "c"), id("a", "bc"));
        let odd = id("\u{1b}[2J\n", &"x".repeat(100_000));
        assert!(odd.len() == 32 && odd.bytes().all(|byte| byte.is_ascii_hexdigit()), "{odd}");
    }

    #[test]
    fn an_id_is_stable_over_versions() {
        // Clients may keep an id over an upgrade of minionsd.
        assert_eq!(id("boot", "instance"), "d1a223f1468e8a058605387dddbe8913");
    }
}
