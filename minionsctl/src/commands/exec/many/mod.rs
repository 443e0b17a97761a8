//! `exec` on many VMs: prints each VM's result as it ends.

mod shown;
mod tally;

use crate::cli;
use crate::client::DaemonClient;
use crate::commands::context::Context;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use minions_api::exec::{ExecRequest, ManyExecEvent, ManyExecRequest};
use shown::{OutputForm, ResultGroups};
use tally::ResultTally;

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    exec: ExecRequest,
    args: &cli::ManyVmsArgs,
) -> Result<ExitStatus, Failure> {
    // Labels alone select among all VMs.
    let vms = if args.on.is_empty() { vec!["*".into()] } else { args.on.clone() };
    let request = ManyExecRequest {
        vms,
        label: args.labels.selector.as_ref().map(ToString::to_string),
        exec,
        concurrency: args.concurrency,
        fail_fast: args.fail_fast,
    };
    let mut events = client.post_lines::<ManyExecEvent>("/exec", &request).await?;
    let json = context.printer.is_structured();
    let look = OutputForm::of_ours();
    let mut tally = ResultTally::default();
    let mut groups = ResultGroups::default();
    let complete = loop {
        let Some(event) = events.next().await? else { break false };
        if json {
            context.printer.json_line(&event)?;
        }
        tally.count(&event);
        match event {
            ManyExecEvent::Summary(_) => break true,
            ManyExecEvent::Heartbeat => {}
            event if json => drop(event),
            event if args.group => groups.add(event),
            event => shown::show(context.printer, &look, &event)?,
        }
    };
    groups.show(context.printer, &look)?;
    context.printer.remark(&tally.summary());
    if complete { Ok(tally.exit_status()) } else { Err(client.broke_off()) }
}
