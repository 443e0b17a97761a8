//! `minionsctl whoami`: what minionsd takes this caller for.

use super::context::Context;
use crate::client::DaemonClient;
use crate::config::ClientConfig;
use crate::exit::ExitStatus;
use crate::failure::Failure;
use crate::output::Rows;
use minions_api::service::{Identity, Scope, Whoami};
use serde::Serialize;

/// Answer of minionsd, and the connection to it.
#[derive(Debug, Serialize)]
struct Caller {
    #[serde(flatten)]
    whoami: Whoami,
    /// Address of minionsd.
    host: String,
}

pub(super) async fn run(
    context: &Context<'_>,
    client: &DaemonClient,
    config: &ClientConfig,
) -> Result<ExitStatus, Failure> {
    let whoami: Whoami = client.get("/whoami", Context::registry()).await?;
    let caller = Caller { whoami, host: config.host.to_string() };
    context.printer.result(&caller, |caller| {
        let scopes: Vec<_> = caller.whoami.scopes.iter().map(|scope| scope.as_str()).collect();
        Rows::new()
            .value("Identity:", identity(&caller.whoami.identity))
            .value("Scopes:", if scopes.is_empty() { "none".into() } else { scopes.join(", ") })
            .value("Minionsd:", &caller.host)
            .value("Identified by:", way(&caller.whoami.identity, &caller.host))
            .optional("Advice:", advice(&caller.whoami.scopes))
    })?;
    Ok(ExitStatus::Success)
}

fn identity(identity: &Identity) -> String {
    match identity {
        Identity::User { uid } => format!("user {uid}"),
        Identity::Token => "bearer token".into(),
        Identity::Unknown => "unknown".into(),
    }
}

fn way(identity: &Identity, host: &str) -> &'static str {
    match identity {
        Identity::Token => "the bearer token",
        Identity::User { .. } if host.starts_with("unix://") => "the kernel, for the Unix socket",
        Identity::User { .. } => "the kernel, for the connection over loopback",
        Identity::Unknown => "neither the kernel nor a token",
    }
}

fn advice(scopes: &[Scope]) -> Option<&'static str> {
    (!scopes.contains(&Scope::Operate)).then_some(
        "to operate, use the Unix socket as root or as a member of the group minions, or --token-file",
    )
}
