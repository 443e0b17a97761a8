//! Declarations files, in YAML or TOML.

use minions_api::declaration::Declaration;
use minions_api::object_form::ObjectsOnly;
use minions_api::pool::Pool;
use serde::Deserialize;
use std::path::Path;

/// Longest file, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;

/// Deepest nesting. The deepest field is `declarations[0].network.interfaces[0].addresses[0]`.
const MAX_DEPTH: usize = 32;

/// Largest number of events that aliases may add. A file in which 10,000 declarations share a network needs 40,000.
const MAX_REPLAYED: usize = 50_000;

/// Largest total size of what aliases may repeat, in bytes.
const MAX_ANCHORED: usize = 4096;

/// Content of a declarations file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Address pools.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// Declarations.
    #[serde(default)]
    pub declarations: Vec<Declaration>,
}

/// Format of a declarations file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentFormat {
    /// YAML, which includes JSON.
    Yaml,
    /// TOML.
    Toml,
}

/// Error in a declarations file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The file is too long.
    #[error("the file has {len} bytes: the limit is {MAX_LEN}; split it into several files")]
    TooLong {
        /// Length of the file.
        len: usize,
    },
    /// The text is not valid, or has an unknown or wrong field.
    #[error("{}{message}", field_prefix(.field))]
    Malformed {
        /// Path of the field; empty if the text cannot be parsed at all.
        field: String,
        /// Cause and position.
        message: String,
    },
}

fn field_prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("`{field}`: ") }
}

impl DocumentFormat {
    /// Returns the format that the extension of a file's name means; `None` for other names.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "yaml" | "yml" | "json" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

impl Document {
    /// Parses the text of a file.
    ///
    /// # Errors
    ///
    /// [`DocumentError`], with the field and the position.
    pub fn parse(text: &str, format: DocumentFormat) -> Result<Self, DocumentError> {
        if text.len() > MAX_LEN {
            return Err(DocumentError::TooLong { len: text.len() });
        }
        match format {
            DocumentFormat::Yaml => from_yaml(text),
            DocumentFormat::Toml => from_toml(text),
        }
    }
}

fn from_yaml(text: &str) -> Result<Document, DocumentError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_recorded_anchor_bytes: MAX_ANCHORED,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_REPLAYED,
            max_replay_stack_depth: 4,
        },
    };
    let mut failed = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        serde_path_to_error::deserialize(ObjectsOnly(yaml)).map_err(|error| {
            failed = error.path().to_string();
            error.into_inner()
        })
    });
    // An empty file, or one with only comments.
    let parsed: Result<Option<Document>, _> = parsed;
    match parsed {
        Ok(document) => Ok(document.unwrap_or_default()),
        Err(error) => Err(malformed(&failed, error.without_snippet().to_string())),
    }
}

fn from_toml(text: &str) -> Result<Document, DocumentError> {
    let toml =
        toml::Deserializer::parse(text).map_err(|error| malformed(".", error.to_string()))?;
    serde_path_to_error::deserialize(ObjectsOnly(toml)).map_err(|error| {
        let field = error.path().to_string();
        malformed(&field, error.into_inner().to_string())
    })
}

fn malformed(field: &str, message: String) -> DocumentError {
    // `.` is the path of the whole document, `?` that of an unknown part.
    let field = if matches!(field, "." | "?") { "" } else { field };
    DocumentError::Malformed { field: field.to_owned(), message: message.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
pools:
  - {name: default, subnet: 10.0.0.0/16, range: 10.0.0.2-10.0.255.254, gateway: 10.0.0.1, dns: [1.1.1.1]}
declarations:
  - name: \"web-*\"
    labels: {app: web}
    hostname: \"{vm}\"
    network: {pool: default}
  - name: db-1
    network:
      interfaces:
        - {name: eth0, addresses: [10.1.0.2/24, \"2001:db8::2/64\"], gateways: [10.1.0.1]}
      routes: [{to: 10.2.0.0/16, via: 10.1.0.9}]
      verify: []
    drift: repair
";

    const TOML: &str = r#"
[[pools]]
name = "default"
subnet = "10.0.0.0/16"
range = "10.0.0.2-10.0.255.254"
gateway = "10.0.0.1"
dns = ["1.1.1.1"]

[[declarations]]
name = "web-*"
labels = { app = "web" }
hostname = "{vm}"
network = { pool = "default" }

[[declarations]]
name = "db-1"
drift = "repair"
[declarations.network]
interfaces = [{ name = "eth0", addresses = ["10.1.0.2/24", "2001:db8::2/64"], gateways = ["10.1.0.1"] }]
routes = [{ to = "10.2.0.0/16", via = "10.1.0.9" }]
verify = []
"#;

    fn yaml_error(text: &str) -> String {
        Document::parse(text, DocumentFormat::Yaml).unwrap_err().to_string()
    }

    #[test]
    fn yaml_and_toml_have_the_same_keys() {
        let yaml = Document::parse(YAML, DocumentFormat::Yaml).unwrap();
        assert_eq!(yaml, Document::parse(TOML, DocumentFormat::Toml).unwrap());
        assert_eq!(yaml.pools[0].gateway.as_deref(), Some("10.0.0.1"));
        let network = yaml.declarations[1].network.clone().unwrap();
        assert_eq!(network.interfaces[0].addresses.as_ref().unwrap()[1], "2001:db8::2/64");
    }

    #[test]
    fn an_empty_file_declares_nothing() {
        for text in ["", "# nothing\n", "{}", "declarations: []"] {
            let parsed = Document::parse(text, DocumentFormat::Yaml);
            assert_eq!(parsed, Ok(Document::default()), "{text:?}");
        }
        assert_eq!(Document::parse("", DocumentFormat::Toml), Ok(Document::default()));
    }

    #[test]
    fn an_unknown_field_is_named_with_its_place_and_the_known_ones() {
        for (text, words) in [
            ("declaration: []", &["declaration", "declarations"][..]),
            ("declarations: [{name: a, netwrk: {}}]", &["declarations[0]", "netwrk", "network"]),
            (
                "declarations: [{name: a, network: {pol: x}}]",
                &["declarations[0].network", "pol", "pool"],
            ),
            ("pools: [{name: a}]", &["pools[0]", "subnet"]),
            (
                "declarations: [{name: a, drift: maybe}]",
                &["declarations[0].drift", "maybe", "repair"],
            ),
            ("declarations: [{name: a, name: b}]", &["name"]),
            ("declarations: 3", &["declarations", "sequence"]),
            ("pools: [[lan, 10.0.0.0/24]]", &["pools[0]", "mapping"]),
            (
                "declarations: [{name: a, network: {interfaces: [[eth0]]}}]",
                &["declarations[0].network.interfaces[0]", "mapping"],
            ),
        ] {
            let error = yaml_error(text);
            for word in words {
                assert!(error.contains(word), "no {word:?} in {error:?} about {text:?}");
            }
        }
        let toml =
            Document::parse("[[declarations]]\nnme = 'x'", DocumentFormat::Toml).unwrap_err();
        assert!(toml.to_string().contains("nme") && toml.to_string().contains("line 2"), "{toml}");
        let list = Document::parse("pools = [['lan', '10.0.0.0/24']]", DocumentFormat::Toml);
        let list = list.unwrap_err().to_string();
        assert!(list.contains("pools[0]") && list.contains("an object"), "{list}");
    }

    #[test]
    fn a_long_file_and_yaml_bombs_are_refused() {
        let long = format!("# {}\n", "x".repeat(10 * MAX_LEN));
        let error = Document::parse(&long, DocumentFormat::Yaml).unwrap_err();
        assert_eq!(error, DocumentError::TooLong { len: long.len() });
        let mut laughs = String::from("a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n");
        for level in 1..10 {
            let list = vec![format!("*a{}", level - 1); 10].join(", ");
            laughs += &format!("a{level}: &a{level} [{list}]\n");
        }
        yaml_error(&laughs);
        let names = vec!["*n"; 60_000].join(", ");
        yaml_error(&format!(
            "declarations: [&n {{name: a, hostname: {}}}, {names}]",
            "x".repeat(4000)
        ));
        yaml_error(&format!("declarations: {}{}", "[".repeat(5000), "]".repeat(5000)));
        yaml_error("a: &a [*a]");
        yaml_error("declarations: []\n---\ndeclarations: []\n");
    }

    #[test]
    fn declarations_may_share_a_part_by_an_alias() {
        let mut text = String::from("declarations:\n- {name: a, network: &net {pool: default}}\n");
        (0..9999).for_each(|at| text += &format!("- {{name: v{at}, network: *net}}\n"));
        let document = Document::parse(&text, DocumentFormat::Yaml).unwrap();
        assert_eq!(document.declarations.len(), 10_000);
        assert_eq!(document.declarations[9999].network, document.declarations[0].network);
    }
}
