//! Checks of the clock and restore policies of a declaration: the rules are those of the same settings in the configuration
//! file.

use minions_api::declaration::{Declaration, DeclaredRestore};
use minions_proto::Invalid;
use minions_proto::message::{ChangeNetwork, MAX_HOOK_TIMEOUT_MS, RestoreStepKind};
use std::ops::RangeInclusive;

/// Allowed values of `clock_limit_ms`, besides 0.
const CLOCK_LIMITS: RangeInclusive<u64> = 100..=86_400_000;

/// Part of a hostname template that stands for the name of the VM.
const VM_PLACEHOLDER: &str = "{vm}";

/// Longest template of a hostname, in bytes.
const MAX_TEMPLATE: usize = 64;

/// Checks the policies of a declaration.
///
/// # Errors
///
/// [`Invalid`] for the first wrong field.
pub(crate) fn check_policies(declaration: &Declaration) -> Result<(), Invalid> {
    if let Some(ms) = declaration.clock_limit_ms.filter(|ms| *ms != 0 && !CLOCK_LIMITS.contains(ms))
    {
        let reason = format!(
            "is {ms}: must be {} to {}, or 0 to never set a clock",
            CLOCK_LIMITS.start(),
            CLOCK_LIMITS.end()
        );
        return Err(Invalid::new("clock_limit_ms", reason));
    }
    declaration.restore.as_deref().map_or(Ok(()), check_restore)
}

fn check_restore(restore: &DeclaredRestore) -> Result<(), Invalid> {
    let DeclaredRestore { steps, required, hostname, network, hook_timeout_ms } = restore;
    let steps = match steps {
        Some(names) => parse_steps("restore.steps", names)?,
        None => vec![RestoreStepKind::Entropy, RestoreStepKind::Clock],
    };
    let required = parse_steps("restore.required", required)?;
    if let Some(step) = required.iter().find(|step| !steps.contains(step)) {
        let reason = format!("names {step}, which is not in `steps`");
        return Err(Invalid::new("restore.required", reason));
    }
    if let Some(hostname) = hostname {
        check_template(hostname)?;
    }
    if let Some(network) = network {
        check_network(&ChangeNetwork::from(network.clone()))?;
    }
    if let Some(ms) = hook_timeout_ms.filter(|ms| !(1..=MAX_HOOK_TIMEOUT_MS).contains(ms)) {
        let reason = format!("is {ms}: must be 1 to {MAX_HOOK_TIMEOUT_MS}");
        return Err(Invalid::new("restore.hook_timeout_ms", reason));
    }
    Ok(())
}

fn parse_steps(field: &str, names: &[String]) -> Result<Vec<RestoreStepKind>, Invalid> {
    let parse = |(index, name): (usize, &String)| {
        let known = name.parse::<RestoreStepKind>();
        known.map_err(|invalid| Invalid::new(format!("{field}[{index}]"), invalid.reason))
    };
    names.iter().enumerate().map(parse).collect()
}

fn check_template(template: &str) -> Result<(), Invalid> {
    let rest = template.replace(VM_PLACEHOLDER, "");
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=MAX_TEMPLATE).contains(&template.len()) && rest.bytes().all(is_allowed) {
        return Ok(());
    }
    let reason = format!(
        "must be 1 to {MAX_TEMPLATE} of A-Z a-z 0-9 . _ - and {VM_PLACEHOLDER} for the VM's name"
    );
    Err(Invalid::value("restore.hostname", template, &reason))
}

fn check_network(network: &ChangeNetwork) -> Result<(), Invalid> {
    let never = [
        ("confirm_within_ms", network.confirm_within_ms.is_some()),
        ("dry_run", network.dry_run.is_some()),
    ];
    if let Some((name, _)) = never.into_iter().find(|(_, given)| *given) {
        let reason = "must be absent: a restore cannot be confirmed";
        return Err(Invalid::new(format!("restore.network.{name}"), reason));
    }
    let planned = network.plan().map(drop);
    planned.map_err(|error| Invalid::new(format!("restore.network.{}", error.field), error.reason))
}
