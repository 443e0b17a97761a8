//! Explanation of a configuration: the declarations that match a VM, and for each field those that have it.

use crate::declaration_set::DeclarationSet;
use crate::effective::EffectiveConfig;
use minions_api::VmName;
use minions_api::declaration::Declaration;
use minions_api::explanation::{
    ConfigExplanation, FieldCandidate, FieldExplanation, MatchingDeclaration,
};
use serde_json::Value;

/// Fields of addresses, which are one field because they exclude each other.
const ADDRESSING: [&str; 3] = ["network.pool", "network.ip", "network.interfaces"];

/// Explains the configuration of a VM.
#[must_use]
pub fn explain(vm: &VmName, declarations: &DeclarationSet) -> ConfigExplanation {
    let mut explanation = ConfigExplanation { declarations: Vec::new(), fields: Vec::new() };
    for stored in declarations.matching(vm) {
        let name = stored.target.as_str();
        let rank = stored.target.specificity();
        explanation.declarations.push(MatchingDeclaration { name: name.to_owned(), rank });
        let mut alone = EffectiveConfig::none(vm);
        alone.fill(name, &stored.declaration);
        for origin in alone.origins() {
            let value = value(&stored.declaration, &origin.field);
            add(
                &mut explanation.fields,
                &origin.field,
                FieldCandidate { from: origin.from, value },
            );
        }
    }
    explanation.fields.sort_by(|one, other| one.field.cmp(&other.field));
    explanation
}

fn add(fields: &mut Vec<FieldExplanation>, field: &str, candidate: FieldCandidate) {
    let is_addressing = |field: &str| ADDRESSING.contains(&field);
    let known = fields
        .iter_mut()
        .find(|one| one.field == field || (is_addressing(&one.field) && is_addressing(field)));
    match known {
        Some(known) => known.candidates.push(candidate),
        None => {
            fields.push(FieldExplanation { field: field.to_owned(), candidates: vec![candidate] })
        }
    }
}

/// Returns the value of a field of a declaration, as JSON.
fn value(declaration: &Declaration, field: &str) -> String {
    // The key of a label may contain dots.
    let path: Vec<_> = match field.strip_prefix("labels.") {
        Some(key) => vec!["labels", key],
        None => field.split('.').collect(),
    };
    // A declaration always converts.
    let json = serde_json::to_value(declaration).unwrap_or_default();
    let found = path.iter().try_fold(&json, |value: &Value, key| value.get(key));
    found.map(Value::to_string).unwrap_or_default()
}
