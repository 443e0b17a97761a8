//! Circles of imports between the modules of each crate: with a circle, a reader finds no place to start.
//!
//! An import is a path in `use` or in code that names another module of the crate, or an item in it; a re-export is
//! one too. Tests inside of modules do not count. Circles cost nothing to compile, and this is a report, not a check.
//!
//! Two kinds are printed. Between files: also a file and its parent, for example through a re-export. Between modules
//! of the same parent: each with all modules below it, and without the parent; these are the harder ones to read.

mod graph;
mod imports;
mod modules;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use serde_json::Value;

use crate::{
    command::{self, cargo},
    progress,
};
use graph::{ImportGraph, ModuleImport};
use modules::ModuleTree;

/// Prints the circles of all crates of the workspace at `root`, and their numbers in the last line.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let mut files = 0;
    let mut siblings = 0;
    for (name, sources) in crates(root)? {
        let graph = read(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
        progress::line(format!("{name}: {} modules", graph.len()));
        files += print("files", &graph);
        for (parent, children) in graph.by_parent() {
            siblings += print(&format!("modules in {parent}"), &children);
        }
    }
    progress::line(format!(
        "{files} circles between files, {siblings} between modules of the same parent"
    ));
    Ok(())
}

/// Returns the names of the crates and the directories of their sources.
fn crates(root: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut ask = cargo();
    ask.args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(root);
    let metadata: Value = serde_json::from_str(&command::run(&mut ask)?)
        .context("cannot parse the output of `cargo metadata`")?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let crates = packages.filter_map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        Some((package["name"].as_str()?.to_owned(), manifest.with_file_name("src")))
    });
    Ok(crates.collect())
}

fn read(sources: &Path) -> anyhow::Result<ImportGraph> {
    let tree = ModuleTree::of(sources)?;
    let mut graph = ImportGraph::new(tree.names());
    for (module, file) in tree.files() {
        let source = fs::read_to_string(file)?;
        // The error of the tokenizer cannot be sent between threads.
        let paths = imports::of(&source)
            .map_err(|error| anyhow!("cannot parse {}: {error}", file.display()))?;
        let shown = file.strip_prefix(sources).unwrap_or(file);
        for path in paths {
            if let Some(target) = tree.resolve(module, &path) {
                let at = format!("{}:{}", shown.display(), path.line);
                graph.add(ModuleImport { from: tree.name(module), to: tree.name(target), at });
            }
        }
    }
    Ok(graph)
}

/// Prints the circles of one kind, with an example of each, and returns their number.
fn print(what: &str, graph: &ImportGraph) -> usize {
    let circles = graph.circles();
    for circle in &circles {
        progress::line(format!("  circle of {} {what}: {}", circle.len(), circle.join(", ")));
        for ModuleImport { from, to, at } in graph.shortest_through(&circle[0]) {
            progress::line(format!("    {from} → {to} ({at})"));
        }
    }
    circles.len()
}
