//! `health_check`: reads three values from the kernel and touches nothing else, so that it answers
//! when the guest can do nothing else.

use super::set_clock::now_ms;
use crate::identity::Identity;
use minions_proto::message::{
    AgentInfo, CLOCK_FEATURE, EXEC_FEATURE, EXEC_LIMITS_FEATURE, Health, NETWORK_FEATURE,
    POWER_FEATURE,
};
use minions_proto::version::{AGENT_NAME, PROTOCOL};
use rustix::system::uname;
use rustix::time::{ClockId, clock_gettime};

/// What this agent knows beyond the base protocol.
const FEATURES: [&str; 5] =
    [EXEC_FEATURE, EXEC_LIMITS_FEATURE, NETWORK_FEATURE, CLOCK_FEATURE, POWER_FEATURE];

pub(super) fn answer(identity: &Identity) -> Health {
    Health {
        uptime_secs: uptime_secs(),
        hostname: uname().nodename().to_string_lossy().into_owned(),
        agent: Some(AgentInfo {
            name: AGENT_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            features: FEATURES.map(str::to_owned).into(),
            boot_id: identity.boot_id.clone(),
            instance_id: identity.instance_id.clone(),
        }),
        time_unix_ms: Some(now_ms()),
    }
}

/// Whole seconds since the kernel started, suspend included.
pub(super) fn uptime_secs() -> u64 {
    u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0)
}
