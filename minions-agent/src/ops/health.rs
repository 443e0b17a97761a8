//! `health_check`: only reads three values from the kernel, so that it works even if nothing else in the guest
//! does.

use super::set_clock::now_ms;
use crate::agent::Agent;
use crate::boot_clock;
use minions_proto::message::{AgentInfo, Health};
use minions_proto::version::{AGENT_NAME, PROTOCOL};
use rustix::system::uname;

pub(super) fn answer(agent: &Agent) -> Health {
    let capabilities = agent.capabilities();
    Health {
        uptime_secs: uptime_secs(),
        hostname: uname().nodename().to_string_lossy().into_owned(),
        agent: Some(agent.generations().describe(AgentInfo {
            name: AGENT_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            features: capabilities.features(),
            allowed: capabilities.names(),
            boot_id: String::new().into(),
            instance_id: String::new().into(),
            generation: None,
            parent_instance_id: None,
            probe_count: None,
            restore: None,
        })),
        time_unix_ms: Some(now_ms()),
        quiesced: agent.quiescer().lease(),
        network_changes: agent.network().changes(),
    }
}

/// Returns the time since the kernel started, in whole seconds, including time in suspend.
pub(super) fn uptime_secs() -> u64 {
    boot_clock::now().as_secs()
}
