//! The OpenAPI document.

use serde_json::Value;
use std::collections::HashSet;

fn document() -> Value {
    serde_json::from_str(&minionsd::openapi_json()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(|(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    operations.collect()
}

#[test]
fn the_committed_document_equals_the_generated_one() {
    let committed = include_str!("../../../openapi/minions.json");
    assert!(
        committed == minionsd::openapi_json(),
        "openapi/minions.json is out of date: run `cargo xtask openapi`"
    );
}

#[test]
fn every_operation_has_a_unique_id_and_documents_its_problems() {
    let document = document();
    let mut ids = HashSet::new();
    for (path, method, operation) in operations(&document) {
        assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}");
        let failures = operation["responses"].as_object().unwrap().iter();
        let failures: Vec<_> =
            failures.filter(|(status, _)| status.starts_with(['4', '5'])).collect();
        assert!(!failures.is_empty(), "{method} {path}");
        for (status, response) in failures {
            let schema = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
        }
    }
}

#[test]
fn every_referenced_schema_exists() {
    let text = minionsd::openapi_json();
    let document = document();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(!document["components"]["schemas"][name].is_null(), "{name}");
    }
}
