//! Modules of a crate, by their files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::imports::WrittenPath;

/// Path of a module in its crate; empty for the root.
type ModulePath = Vec<String>;

/// Modules of a crate that have a file.
#[derive(Debug, Default)]
pub(super) struct ModuleTree {
    files: BTreeMap<ModulePath, PathBuf>,
}

impl ModuleTree {
    /// Lists the modules in the directory `src` of a package, without its programs in `bin`.
    pub(super) fn of(sources: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.collect(sources, &[])?;
        // The library is the root; a program next to it only uses it.
        let program = tree.files.remove(&vec!["main".to_owned()]);
        let root = tree.files.remove(&vec!["lib".to_owned()]).or(program);
        if let Some(root) = root {
            tree.files.insert(Vec::new(), root);
        }
        Ok(tree)
    }

    fn collect(&mut self, dir: &Path, module: &[String]) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let mut below = module.to_vec();
            if name != "mod" {
                below.push(name.to_owned());
            }
            if path.is_dir() {
                if below != ["bin"] {
                    self.collect(&path, &below)?;
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.files.insert(below, path);
            }
        }
        Ok(())
    }

    /// Returns the modules and their files.
    pub(super) fn files(&self) -> impl Iterator<Item = (&[String], &Path)> {
        self.files.iter().map(|(module, file)| (module.as_slice(), file.as_path()))
    }

    /// Returns the names of all modules.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.files.keys().map(|module| self.name(module))
    }

    /// Formats the path of a module: `crate::agent::pool`.
    #[expect(
        clippy::unused_self,
        reason = "a name has a meaning only for the modules of this tree"
    )]
    pub(super) fn name(&self, module: &[String]) -> String {
        ["crate"]
            .into_iter()
            .chain(module.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join("::")
    }

    /// Returns the module that a path in `module` names or that contains the named item; `None` for other crates
    /// and for names that do not start with a module.
    pub(super) fn resolve<'a>(
        &'a self,
        module: &[String],
        path: &WrittenPath,
    ) -> Option<&'a [String]> {
        let mut base: ModulePath = module.iter().chain(&path.inside).cloned().collect();
        let mut rest = path.segments.as_slice();
        let mut is_relative = false;
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => base.clear(),
                "self" => {}
                "super" => {
                    base.pop()?;
                }
                _ => break,
            }
            is_relative = true;
            rest = after;
        }
        let start = base.len();
        for segment in rest {
            base.push(segment.clone());
            if !self.files.contains_key(&base) {
                base.pop();
                break;
            }
        }
        // A name without `crate` or the like is a module below this one, or something else.
        if !is_relative && base.len() == start {
            return None;
        }
        // A module inside of a file belongs to that file.
        while !self.files.contains_key(&base) {
            base.pop()?;
        }
        self.files.get_key_value(&base).map(|(module, _)| module.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path) -> ModuleTree {
        for file in ["lib.rs", "main.rs", "a.rs", "b/mod.rs", "b/c.rs", "bin/tool.rs"] {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        ModuleTree::of(dir).unwrap()
    }

    #[test]
    fn files_are_modules_and_programs_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = tree(dir.path()).names().collect();
        assert_eq!(names, ["crate", "crate::a", "crate::b", "crate::b::c"]);
    }

    #[test]
    fn paths_are_resolved_from_the_module_that_they_are_written_in() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path());
        let resolve = |from: &str, inside: &[&str], path: &str| {
            let split = |text: &str| -> ModulePath {
                text.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect()
            };
            let inside = inside.iter().map(|&name| name.to_owned()).collect();
            let path = WrittenPath { segments: split(path), inside, line: 1 };
            tree.resolve(&split(from), &path).map(|module| tree.name(module))
        };
        let crate_b_c = Some("crate::b::c".to_owned());
        assert_eq!(resolve("a", &[], "crate::b::c::Item"), crate_b_c);
        assert_eq!(resolve("b", &[], "c::Item"), crate_b_c);
        assert_eq!(resolve("b", &[], "self::c"), crate_b_c);
        assert_eq!(resolve("a", &[], "super::b::c"), crate_b_c);
        assert_eq!(resolve("b::c", &[], "super::Item"), Some("crate::b".into()));
        assert_eq!(resolve("b::c", &[], "super::super::Item"), Some("crate".into()));
        assert_eq!(resolve("b::c", &["inner"], "super::super::Item"), Some("crate::b".into()));
        assert_eq!(resolve("b::c", &["inner"], "super::Item"), crate_b_c);
        assert_eq!(resolve("a", &[], "std::fs"), None);
        assert_eq!(resolve("", &[], "a::run"), Some("crate::a".into()));
    }
}
