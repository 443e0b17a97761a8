//! Checks the mechanical part of "How the text reads" in CONTRIBUTING.md.
//!
//! | checked | where |
//! |---|---|
//! | words that the house style avoids | comments of all Rust files, all pages |
//! | the first word of a doc comment | Rust files outside `tests/` |
//! | type names of one word | Rust files outside `tests/`, against the list in `type_names.txt` |
//! | descriptions | each operation of openapi/minions.json |
//! | lines that a failed merge has left | all pages |
//!
//! Each finding says what to write instead. The rest of the rule needs a reader.

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{progress::Outcome, workspace::Workspace};

/// Words to avoid, in lower case, and their replacements.
const AVOIDED: [(&str, &str); 14] = [
    ("nobody", "\"no client\", \"no caller\", \"no other process\""),
    ("somebody", "\"another process\", \"another client\""),
    ("anybody", "\"any user\", \"any client\""),
    ("whoever", "\"the caller\", \"a client that …\""),
    ("himself", "\"the user\", \"the operator\""),
    ("herself", "\"the user\", \"the operator\""),
    ("shall", "\"must\" or \"will\""),
    ("anew", "\"again\""),
    ("for ever", "\"forever\""),
    ("beside", "\"next to\", \"besides\" or \"also\""),
    ("behind", "\"after\", \"following\" or the name of the relation"),
    ("can't be had", "\"is unavailable\" or \"failed to load\""),
    ("is none", "\"is not a …\""),
    ("at it", "\"working on it\", \"running\""),
];

/// Words that must not open a doc comment: none of them names the thing.
const OPENERS: [&str; 38] = [
    "what", "whether", "how", "one", "who", "whoever", "which", "why", "for", "of", "it", "its",
    "nobody", "somebody", "as", "that", "those", "where", "when", "if", "from", "with", "in", "on",
    "by", "after", "before", "not", "no", "so", "same", "likewise", "there", "they", "this",
    "these", "and", "or",
];

/// Type names of one word that say enough in their crate, one in a line.
const TYPE_NAMES: &str = include_str!("type_names.txt");

/// Crates whose type names are checked.
const TYPES_CHECKED: [&str; 8] = [
    "bench",
    "minions-agent",
    "minions-api",
    "minions-proto",
    "minions-tree",
    "minionsctl",
    "minionsd",
    "xtask",
];

/// Directories that contain no text of this project.
const SKIPPED: [&str; 3] = ["target", "corpus", "artifacts"];

/// Most findings that are printed.
const SHOWN: usize = 200;

/// Checks all Rust files, all pages and the API description.
pub(super) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut files = Vec::new();
    collect(workspace.root(), &mut files).context("cannot list the workspace's files")?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(workspace.root()).unwrap_or(file);
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => findings.extend(of_source(name, &text)),
            _ => findings.extend(of_page(name, &text)),
        }
    }
    findings.extend(of_api(&workspace.root().join("openapi/minions.json"))?);
    let shown: Vec<_> = findings.iter().take(SHOWN).map(Finding::to_string).collect();
    ensure!(
        findings.is_empty(),
        "{} places do not follow \"How the text reads\" in CONTRIBUTING.md:\n{}",
        findings.len(),
        shown.join("\n")
    );
    Ok(Outcome::done(format!("{} files", files.len())))
}

/// Place in a file, and the rule that it breaks.
#[derive(Debug)]
struct Finding {
    file: PathBuf,
    line: usize,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file.display(), self.line, self.advice)
    }
}

/// Lists Rust files and Markdown pages below a directory.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        if entry.file_type()?.is_dir() {
            if !hidden && !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

fn of_source(file: &Path, text: &str) -> Vec<Finding> {
    let is_test = file.components().any(|component| component.as_os_str() == "tests");
    // The lists of words above are not prose.
    let is_rule = file.ends_with("test/language.rs");
    let allowed: BTreeSet<&str> = TYPE_NAMES.lines().collect();
    let checks_types = TYPES_CHECKED.iter().any(|dir| file.starts_with(dir));
    let mut findings = Vec::new();
    let mut in_docs = false;
    for (line, text) in (1..).zip(text.lines()) {
        let mut find = |advice| findings.push(Finding { file: file.to_owned(), line, advice });
        if let Some(comment) = comment(text) {
            avoided(comment).map(&mut find);
        }
        let docs = docs(text);
        if let Some(docs) = docs.filter(|_| !in_docs && !is_test) {
            opener(docs).map(&mut find);
        }
        // Only the first line of a comment is its head: later paragraphs may begin as they like.
        in_docs = docs.is_some();
        let name = type_name(text).filter(|_| checks_types && !is_test);
        if let Some(name) = name.filter(|name| is_one_word(name) && !allowed.contains(name)) {
            find(format!(
                "type `{name}`: name what it holds (`AuditEntry`, not `Entry`), or add a term of the field to \
                 xtask/src/test/type_names.txt"
            ));
        }
    }
    if is_rule { Vec::new() } else { findings }
}

fn of_page(file: &Path, text: &str) -> Vec<Finding> {
    // CONTRIBUTING.md quotes what it advises against.
    let quotes = file == Path::new("CONTRIBUTING.md");
    let lines = (1..).zip(text.lines()).filter(|(_, text)| !(quotes && text.starts_with('|')));
    lines
        .filter_map(|(line, text)| {
            let advice = avoided(text).filter(|_| !quotes || !text.contains('*'));
            let advice = merge_mark(text).or(advice)?;
            Some(Finding { file: file.to_owned(), line, advice })
        })
        .collect()
}

/// Returns an advice if a merge has left the line. The compiler finds such lines in source files.
fn merge_mark(text: &str) -> Option<String> {
    let is_mark = ["<<<<<<< ", ">>>>>>> "].iter().any(|mark| text.starts_with(mark));
    is_mark.then(|| "a line of an unfinished merge: keep one of the two texts".to_owned())
}

/// Operations without a description.
fn of_api(file: &Path) -> anyhow::Result<Vec<Finding>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let document: Value =
        serde_json::from_str(&text).context("cannot parse the API description")?;
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        item.as_object()
            .into_iter()
            .flatten()
            .map(move |(method, operation)| (path, method, operation))
    });
    let bare = operations.filter(|(.., operation)| {
        operation.is_object() && operation["description"].as_str().is_none_or(str::is_empty)
    });
    Ok(bare
        .map(|(path, method, _)| Finding {
            file: "openapi/minions.json".into(),
            line: 1,
            advice: format!(
                "{} {path} has no description: add a second paragraph to the handler's doc comment",
                method.to_uppercase()
            ),
        })
        .collect())
}

/// Text of a comment in a line of Rust, if there is one.
fn comment(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    if trimmed.starts_with("//") {
        return Some(trimmed);
    }
    // After code, and not the `//` of a URL in a string.
    line.find(" // ").map(|at| &line[at..])
}

/// Text of a line of a doc comment.
fn docs(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    Some(text.trim())
}

fn avoided(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    // The established terms.
    let lower = lower.replace("behind a reverse proxy", "").replace("behind a proxy", "");
    let (word, instead) = AVOIDED.iter().find(|(word, _)| contains_word(&lower, word))?;
    Some(format!("\"{word}\": write {instead}"))
}

fn opener(docs: &str) -> Option<String> {
    let lower = docs.to_lowercase();
    let first = lower.trim_start_matches(|first: char| !first.is_alphanumeric());
    let first = first.strip_prefix("the same").map_or(first, |_| "same");
    let word = OPENERS.iter().find(|word| {
        first.strip_prefix(**word).is_some_and(|rest| !rest.starts_with(is_part_of_word))
    })?;
    Some(format!(
        "a doc comment that opens with \"{word}\": name the thing, with a verb in the third person for a function \
         (\"Returns the next idle connection\") and a noun phrase for a type or a field (\"Deadline for one probe\")"
    ))
}

fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_part_of_word)
            && !text[at + word.len()..].starts_with(is_part_of_word)
    })
}

fn is_part_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Name of a type that is declared in this line.
fn type_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.split_once(' ')?.1.trim_start(),
        None => line,
    };
    let rest =
        ["struct ", "enum ", "trait "].iter().find_map(|keyword| line.strip_prefix(keyword))?;
    // A macro's `struct $name` has none.
    rest.split(|character| !is_part_of_word(character)).next().filter(|name| !name.is_empty())
}

fn is_one_word(name: &str) -> bool {
    let mut previous = 'A';
    name.chars().all(|character| {
        let boundary = character.is_uppercase() && !previous.is_uppercase();
        previous = character;
        !boundary
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advice(file: &str, text: &str) -> Vec<String> {
        of_source(Path::new(file), text).into_iter().map(|finding| finding.advice).collect()
    }

    #[test]
    fn a_doc_comment_that_does_not_name_the_thing_is_found() {
        for text in ["/// Whether it went.", "//! What a handler adds.", "    /// The same, later."]
        {
            let found = advice("a/src/b.rs", text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].contains("name the thing"), "{found:?}");
        }
        // Only the first line counts, and tests have names instead.
        assert!(
            advice("a/src/b.rs", "/// Deadline for a probe,\n/// whether idle or not.").is_empty()
        );
        assert!(advice("a/tests/b.rs", "/// Whether it went.").is_empty());
        assert!(advice("a/src/b.rs", "/// Onion, item, forge.").is_empty());
        assert!(
            advice("a/src/b.rs", "/// Deadline for a probe.\n///\n/// If it passes …").is_empty()
        );
    }

    #[test]
    fn avoided_words_are_found_in_comments_and_pages_only() {
        assert_eq!(advice("a/src/b.rs", "let behind = 1; // nobody reads it").len(), 1);
        assert!(advice("a/src/b.rs", "let nobody = \"shall\";").is_empty());
        assert!(advice("a/src/b.rs", "// marshalled besides").is_empty());
        let found = of_page(Path::new("docs/A.md"), "fine\nIt shall not.\n");
        assert_eq!(found[0].to_string(), "docs/A.md:2: \"shall\": write \"must\" or \"will\"");
    }

    #[test]
    fn lines_of_an_unfinished_merge_are_found_in_pages() {
        let mark = |character: &str| format!("{} one\n", character.repeat(7));
        for text in [mark("<"), mark(">")] {
            let found = of_page(Path::new("docs/A.md"), &format!("fine\n{text}"));
            assert_eq!(found[0].line, 2, "{found:?}");
        }
        assert!(of_page(Path::new("docs/A.md"), "a > b\n=======\n").is_empty());
    }

    #[test]
    fn a_type_of_one_word_needs_an_entry_in_the_list() {
        for text in ["struct Thing;", "pub(crate) enum Told {", "pub trait Way: Send {"] {
            assert_eq!(advice("xtask/src/b.rs", text).len(), 1, "{text}");
        }
        for text in ["pub struct AuditEntry {", "struct Pool<T> {", "let structure = 1;"] {
            assert!(advice("xtask/src/b.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn the_list_of_type_names_is_sorted_and_short() {
        let names: Vec<&str> = TYPE_NAMES.lines().collect();
        assert!(names.is_sorted());
        assert!(names.len() <= 150, "{} names", names.len());
    }
}
