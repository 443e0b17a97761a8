//! Small changes to somebody else's source, which say so when that source isn't what they were made for.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// One place in one file.
#[derive(Debug, Hash)]
pub(crate) struct Edit {
    /// What is wrong without it.
    pub(crate) why: &'static str,
    /// Relative to the package.
    pub(crate) file: &'static str,
    /// What is there, in that file exactly once.
    pub(crate) find: &'static str,
    /// What is there afterwards.
    pub(crate) replace: &'static str,
}

/// Why the source can't be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("{} has {count} places for the edit against \"{why}\", and must have one: {find}", file.display())]
    Misplaced { file: PathBuf, count: usize, why: &'static str, find: &'static str },
    #[error("cannot change {}", file.display())]
    Io { file: PathBuf, source: io::Error },
}

/// Makes all `edits` in the package at `package`.
pub(crate) fn apply(package: &Path, edits: &[Edit]) -> Result<(), EditError> {
    edits.iter().try_for_each(|edit| edit.apply(package))
}

impl Edit {
    fn apply(&self, package: &Path) -> Result<(), EditError> {
        let &Self { why, file, find, replace } = self;
        let file = package.join(file);
        let failed = |source| EditError::Io { file: file.clone(), source };
        let source = fs::read_to_string(&file).map_err(failed)?;
        match source.matches(find).count() {
            1 => fs::write(&file, source.replace(find, replace)).map_err(failed),
            count => Err(EditError::Misplaced { file, count, why, find }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDIT: Edit =
        Edit { why: "it panics", file: "main.rs", find: "f().unwrap()", replace: "f()?" };

    fn edited(source: &str) -> Result<String, EditError> {
        let package = tempfile::tempdir().unwrap();
        let file = package.path().join("main.rs");
        fs::write(&file, source).unwrap();
        apply(package.path(), &[EDIT])?;
        Ok(fs::read_to_string(file).unwrap())
    }

    #[test]
    fn the_one_place_is_changed_and_nothing_else() {
        assert_eq!(edited("a; f().unwrap(); b").unwrap(), "a; f()?; b");
    }

    #[test]
    fn a_source_that_is_another_one_is_refused_by_name() {
        for (source, count) in [("g()", 0), ("f().unwrap(); f().unwrap()", 2)] {
            let error = edited(source).unwrap_err();
            assert!(matches!(error, EditError::Misplaced { count: found, .. } if found == count));
            let text = error.to_string();
            assert!(text.contains("it panics") && text.contains("main.rs"), "{text}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let package = tempfile::tempdir().unwrap();
        let error = apply(package.path(), &[EDIT]).unwrap_err();
        assert!(error.to_string().contains("main.rs"), "{error}");
    }
}
