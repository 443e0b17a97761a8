//! `health_check`: reads two values from the kernel and touches nothing else, so that it answers
//! when the guest can do nothing else.

use crate::identity::Identity;
use minions_proto::message::{AgentInfo, EXEC_FEATURE, Health, NETWORK_FEATURE};
use minions_proto::version::{AGENT_NAME, PROTOCOL};
use rustix::system::uname;
use rustix::time::{ClockId, clock_gettime};

pub(super) fn answer(identity: &Identity) -> Health {
    Health {
        uptime_secs: uptime_secs(),
        hostname: uname().nodename().to_string_lossy().into_owned(),
        agent: Some(AgentInfo {
            name: AGENT_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            features: vec![EXEC_FEATURE.to_owned(), NETWORK_FEATURE.to_owned()],
            boot_id: identity.boot_id.clone(),
            instance_id: identity.instance_id.clone(),
        }),
    }
}

/// Whole seconds since the kernel started, suspend included.
pub(super) fn uptime_secs() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}
