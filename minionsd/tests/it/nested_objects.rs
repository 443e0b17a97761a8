//! Objects within requests: a list of their members in place of one is refused, for every object of the OpenAPI document.

use serde_json::{Map, Value, json};
use testkit::daemon::{TestDaemon, read};

/// Deepest nesting of objects that is tried.
const MAX_DEPTH: usize = 6;

fn document() -> Value {
    serde_json::from_str(&minionsd::openapi_json()).unwrap()
}

/// Returns the schema itself in place of a reference or of an optional reference.
fn resolved<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return resolved(document, &document["components"]["schemas"][name]);
    }
    let variants = schema["oneOf"].as_array().or(schema["allOf"].as_array());
    let is_null = |one: &&Value| one["type"] != "null";
    match variants.map(|all| all.iter().filter(is_null).collect::<Vec<_>>()).as_deref() {
        Some([one]) => resolved(document, one),
        _ => schema,
    }
}

fn is_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::String(kind) => kind == name,
        Value::Array(kinds) => kinds.iter().any(|kind| kind == name),
        _ => false,
    }
}

/// Returns a value of a schema, as short as possible.
fn sample(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    if let Some(known) = schema["enum"].as_array() {
        return known[0].clone();
    }
    if is_type(schema, "object") {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let member = |name: &Value| {
            let name = name.as_str().unwrap();
            (name.to_owned(), sample(document, &schema["properties"][name]))
        };
        return Value::Object(required.iter().map(member).collect());
    }
    let kinds = [("array", json!([])), ("boolean", json!(false)), ("integer", json!(1))];
    let known = kinds.into_iter().find(|(kind, _)| is_type(schema, kind));
    let given = schema.get("minimum").or(schema.get("example")).cloned();
    given.or(known.map(|(_, value)| value)).unwrap_or(json!("x"))
}

/// Object within a request: its path, and the request with a list in its place.
struct NestedObject {
    path: String,
    request: Value,
}

/// Finds the objects below a schema. `around` builds the request around a value of the schema.
fn find(
    document: &Value,
    schema: &Value,
    path: &str,
    depth: usize,
    around: &dyn Fn(Value) -> Value,
    found: &mut Vec<NestedObject>,
) {
    let schema = resolved(document, schema);
    if depth > MAX_DEPTH {
        return;
    }
    if is_type(schema, "array") {
        let inner = |value: Value| around(json!([value]));
        return find(document, &schema["items"], &format!("{path}[0]"), depth + 1, &inner, found);
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    if !path.is_empty() {
        let members: Vec<_> =
            properties.values().map(|property| sample(document, property)).collect();
        found.push(NestedObject { path: path.to_owned(), request: around(json!(members)) });
    }
    for (name, property) in properties {
        let inner = |value: Value| {
            let mut object: Map<String, Value> =
                sample(document, schema).as_object().unwrap().clone();
            object.insert(name.clone(), value);
            around(Value::Object(object))
        };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        find(document, property, &path, depth + 1, &inner, found);
    }
}

#[tokio::test]
async fn a_list_in_place_of_an_object_is_refused_by_its_path() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let document = document();
    let mut tried = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            if schema.is_null() {
                continue;
            }
            let mut found = Vec::new();
            find(&document, schema, "", 0, &|value| value, &mut found);
            let url = path.replace("{vm}", "web-1").replace("{name}", "x").replace("{pool}", "x");
            for NestedObject { path, request } in found {
                let method = method.to_uppercase().parse().unwrap();
                let sent = daemon.request(method, &url).json(&request).send().await.unwrap();
                let reply = read(sent).await;
                assert_eq!(reply.status, 422, "{url} {request}: {reply:?}");
                reply.assert_problem(422, "invalid_request").assert_field(&path);
                tried.push(format!("{url} {path}"));
            }
        }
    }
    for known in [
        "/declarations pools[0]",
        "/declarations declarations[0].network.interfaces[0]",
        "/vms/web-1/network routes[0]",
        "/vms/web-1/exec tty",
    ] {
        assert!(tried.iter().any(|one| one == known), "{known} is not in {tried:?}");
    }
}
