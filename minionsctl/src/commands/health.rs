//! `minionsctl health VM`: asks the agent for its health.

use super::context::Context;
use crate::agent;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::health::Health;
use minions_proto::message::HealthCheck;
use std::time::Duration;

pub(super) async fn run(context: &Context<'_>, target: &Target) -> Result<ExitStatus, Failure> {
    match target {
        Target::Agent(address) => {
            let answer = agent::call(address, &HealthCheck {}, context.quick_direct()).await?;
            context.printer.json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let health: Health = client.get(&vm_path(vm, "/health"), context.quick()).await?;
            context.printer.result(&health, |health| {
                let agent = health.agent.as_ref();
                Rows::new()
                    .value("Status:", &health.status)
                    .value("Hostname:", &health.hostname)
                    .value("Uptime:", uptime(health.uptime_secs))
                    .optional(
                        "Agent:",
                        agent.map(|agent| format!("{} {}", agent.name, agent.version)),
                    )
                    .optional("Protocol:", agent.map(|agent| agent.protocol))
                    .optional("Quiesced until:", health.quiesced_until)
                    .optional(
                        "Clock:",
                        health
                            .clock_offset_ms
                            .map(|ms| format!("{ms:+} ms relative to the host's")),
                    )
            })?;
        }
    }
    Ok(ExitStatus::Success)
}

/// Formats a time in the form `1day 2h 3m 4s`.
pub(super) fn uptime(secs: u64) -> String {
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}
