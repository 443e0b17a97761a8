//! Differences between two versions of a declared item.

use minions_api::declaration::FieldDiff;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Returns the differences field by field. A list is one field; an object is one field for each of its keys.
pub fn diff<T: Serialize>(from: Option<&T>, to: Option<&T>) -> Vec<FieldDiff> {
    let (from, to) = (fields(from), fields(to));
    let mut keys: Vec<_> = from.keys().chain(to.keys()).collect();
    keys.sort();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| from.get(*key) != to.get(*key));
    changed
        .map(|key| FieldDiff {
            field: key.clone(),
            from: from.get(key).cloned(),
            to: to.get(key).cloned(),
        })
        .collect()
}

fn fields<T: Serialize>(item: Option<&T>) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    // The types of this crate always convert.
    if let Some(value) = item.and_then(|item| serde_json::to_value(item).ok()) {
        flatten(String::new(), &value, &mut fields);
    }
    fields.remove("name");
    fields
}

fn flatten(path: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(path, value, fields);
            }
        }
        value => _ = fields.insert(path, value.to_string()),
    }
}
