//! `minionsctl set-clock VM`: sets the guest's clock.

use super::context::Context;
use crate::agent;
use crate::cli;
use crate::client::vm_path;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use crate::target::Target;
use minions_api::clock::{ClockRequest, ClockSet};
use minions_proto::message::SetClock;
use reqwest::Method;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) async fn run(
    context: &Context<'_>,
    target: &Target,
    args: &cli::SetClockArgs,
) -> Result<ExitStatus, Failure> {
    let asked = args.time.map(unix_ms);
    match target {
        Target::Agent(address) => {
            let time_unix_ms = asked.unwrap_or_else(|| unix_ms(SystemTime::now()));
            let call = SetClock { time_unix_ms }.validate()?;
            let answer = agent::call(address, &call, context.quick_direct()).await?;
            context.printer.json(&answer.json)?;
        }
        Target::Vm(client, vm) => {
            let body = ClockRequest { time_unix_ms: asked };
            let path = vm_path(vm, "/clock");
            let set: ClockSet =
                client.send_json(Method::PUT, &path, &body, context.quick()).await?;
            context.printer.result(&set, |set| Rows::new().row([moved(set.step_ms)]))?;
        }
    }
    Ok(ExitStatus::Success)
}

fn moved(step_ms: i64) -> String {
    format!("clock moved by {step_ms} ms")
}

fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
