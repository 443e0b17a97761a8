//! Selection of the VMs of a request for many.

use super::super::problem::ApiError;
use crate::vm::Vm;
use crate::vm::registry::Vms;
use minions_api::{ErrorCode, VmName};
use minions_proto::Invalid;
use std::collections::BTreeMap;
use wildmatch::WildMatch;

/// Maximum number of names and patterns in a request.
const MAX_WANTED: usize = 10_000;

/// Maximum number of patterns in a request: each is matched against every VM.
const MAX_PATTERNS: usize = 256;

/// Returns the selected VMs without duplicates, ordered by name.
///
/// # Errors
///
/// Names the first entry that is an invalid name, a name of no VM, or a pattern without a match.
pub(super) fn select(wanted: &[String], vms: &Vms) -> Result<Vec<Vm>, ApiError> {
    if wanted.is_empty() {
        return Err(invalid("vms", "is empty; name at least one VM, or use `*` for all"));
    }
    if wanted.len() > MAX_WANTED {
        return Err(invalid("vms", "has more than 10000 entries; use patterns instead"));
    }
    let patterns = wanted.iter().filter(|wanted| is_pattern(wanted)).count();
    if patterns > MAX_PATTERNS {
        return Err(invalid("vms", "has more than 256 patterns"));
    }
    let mut selected: BTreeMap<&VmName, &Vm> = BTreeMap::new();
    for (at, wanted) in wanted.iter().enumerate() {
        let in_field = |error: ApiError| error.within_field(&format!("vms[{at}]"));
        if is_pattern(wanted) {
            selected.extend(matching(wanted, vms).map_err(in_field)?);
        } else {
            selected.extend([named(wanted, vms).map_err(in_field)?]);
        }
    }
    Ok(selected.into_values().cloned().collect())
}

fn is_pattern(wanted: &str) -> bool {
    wanted.contains(['*', '?'])
}

fn named<'v>(wanted: &str, vms: &'v Vms) -> Result<(&'v VmName, &'v Vm), ApiError> {
    let name: VmName = wanted
        .parse()
        .map_err(|error| ApiError::invalid(&Invalid::value("vms", wanted, &format!("{error}"))))?;
    vms.get_key_value(&name).ok_or_else(|| ApiError::vm_not_found(name))
}

fn matching<'v>(wanted: &str, vms: &'v Vms) -> Result<Vec<(&'v VmName, &'v Vm)>, ApiError> {
    let possible = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*?".contains(&byte);
    if !wanted.bytes().all(possible) || wanted.len() > 128 {
        let rule = "must be 1 to 128 characters of A-Z a-z 0-9 . _ - * ?";
        return Err(ApiError::invalid(&Invalid::value("vms", wanted, rule)));
    }
    let pattern = WildMatch::new(wanted);
    let found: Vec<_> = vms.iter().filter(|(name, _)| pattern.matches(name.as_str())).collect();
    if found.is_empty() {
        let detail = format!("no VM's name matches {wanted:?}; GET /vms lists all VMs");
        return Err(ApiError::of(ErrorCode::VmNotFound, detail));
    }
    Ok(found)
}

fn invalid(field: &str, reason: &str) -> ApiError {
    ApiError::invalid(&Invalid::new(field, reason))
}
