//! `health_check`: only reads three values from the kernel, so that it works even if nothing else in the guest
//! does.

use super::set_clock::now_ms;
use crate::boot_clock;
use crate::capability::Capabilities;
use crate::identity::AgentIdentity;
use crate::quiesce::QuiesceControl;
use minions_proto::message::{AgentInfo, Health};
use minions_proto::version::{AGENT_NAME, PROTOCOL};
use rustix::system::uname;

pub(super) fn answer(
    identity: &AgentIdentity,
    capabilities: Capabilities,
    quiescer: &QuiesceControl,
) -> Health {
    Health {
        uptime_secs: uptime_secs(),
        hostname: uname().nodename().to_string_lossy().into_owned(),
        agent: Some(AgentInfo {
            name: AGENT_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            features: capabilities.features(),
            boot_id: identity.boot_id.clone(),
            instance_id: identity.instance_id.clone(),
            allowed: capabilities.names(),
        }),
        time_unix_ms: Some(now_ms()),
        quiesced: quiescer.lease(),
    }
}

/// Returns the time since the kernel started, in whole seconds, including time in suspend.
pub(super) fn uptime_secs() -> u64 {
    boot_clock::now().as_secs()
}
