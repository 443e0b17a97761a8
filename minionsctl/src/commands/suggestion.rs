//! Suggestions for names that do not exist: "did you mean".

use super::context::Context;
use super::ls;
use crate::cli::SelectorArgs;
use crate::client::{DaemonClient, vm_path};
use crate::config::ClientConfig;
use crate::failure::Failure;
use minions_api::exec::ExecInfoList;
use minions_api::{ErrorCode, VmName};
use minions_proto::message::ExecId;
use std::time::Duration;
use strsim::damerau_levenshtein;
use tokio::time::timeout;

/// Longest time that the search for similar names may delay the report of a failure.
const DEADLINE: Duration = Duration::from_secs(2);

/// Largest number of names in a suggestion.
const MAX_NAMES: usize = 3;

/// Failure of a command, with a suggestion in place of the usual hint.
#[derive(Debug)]
pub(crate) struct CommandFailure {
    pub(crate) failure: Failure,
    pub(crate) suggestion: Option<String>,
}

impl From<Failure> for CommandFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, suggestion: None }
    }
}

/// Adds a suggestion if the failure is about the name of a VM, or about the id of `program`.
pub(super) async fn with_suggestion(
    config: &ClientConfig,
    failure: Failure,
    program: Option<&(VmName, ExecId)>,
) -> CommandFailure {
    let found = timeout(DEADLINE, find(config, &failure, program)).await;
    CommandFailure { failure, suggestion: found.ok().flatten() }
}

async fn find(
    config: &ClientConfig,
    failure: &Failure,
    program: Option<&(VmName, ExecId)>,
) -> Option<String> {
    let problem = failure.problem()?;
    if config.agent.is_some() {
        return None;
    }
    match (problem.code, &problem.vm, program) {
        (ErrorCode::VmNotFound, Some(vm), _) => {
            did_you_mean(vm.as_str(), &vms(&DaemonClient::new(config).ok()?).await?)
        }
        (ErrorCode::ExecGone, _, Some((vm, id))) => {
            let client = DaemonClient::new(config).ok()?;
            let id = id.to_string();
            if vms(&client).await?.contains(&id) {
                return Some(format!(
                    "{id} is a VM: `minionsctl wait --for ready {vm} {id}` waits for both"
                ));
            }
            let list: ExecInfoList =
                client.get(&vm_path(vm, "/execs"), Context::registry()).await.ok()?;
            let ids: Vec<_> = list.execs.into_iter().map(|info| info.id).collect();
            did_you_mean(&id, &ids)
        }
        _ => None,
    }
}

async fn vms(client: &DaemonClient) -> Option<Vec<String>> {
    let list = ls::selected(client, &SelectorArgs::default()).await.ok()?;
    Some(list.vms.into_iter().map(|vm| vm.name.to_string()).collect())
}

/// Returns a suggestion with the names that are similar to `name`, the most similar first.
fn did_you_mean(name: &str, known: &[String]) -> Option<String> {
    let wanted = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    let distance = |known: &String| damerau_levenshtein(&wanted, &known.to_lowercase());
    let mut similar: Vec<_> = known
        .iter()
        .map(|known| (distance(known), known))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    similar.sort();
    let names: Vec<_> = similar.iter().take(MAX_NAMES).map(|(_, name)| name.as_str()).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested_the_most_similar_first() {
        let known = ["web-1", "web-2", "db", "node-001", "WEB-10"].map(str::to_owned);
        for (name, suggestion) in [
            ("Web-1", Some("did you mean web-1 or WEB-10 or web-2?")),
            ("web1", Some("did you mean web-1?")),
            ("wbe-2", Some("did you mean web-2?")),
            ("node-0001", Some("did you mean node-001?")),
            ("bd", Some("did you mean db?")),
            ("mail", None),
        ] {
            assert_eq!(did_you_mean(name, &known).as_deref(), suggestion, "{name}");
        }
    }
}
