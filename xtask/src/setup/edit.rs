//! Small changes to third-party source, which fail if that source is not the expected one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Change of one place in one file.
#[derive(Debug, Hash)]
pub(crate) struct Edit {
    /// Fault of the unchanged source.
    pub(crate) why: &'static str,
    /// File to change, relative to the package.
    pub(crate) file: &'static str,
    /// Text to replace; it must be in the file exactly once.
    pub(crate) find: &'static str,
    /// Replacement.
    pub(crate) replace: &'static str,
}

/// Failure to change the source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("{} has {count} matches for the edit against \"{why}\", expected one: {find}", file.display())]
    Misplaced { file: PathBuf, count: usize, why: &'static str, find: &'static str },
    #[error("cannot change {}", file.display())]
    Io { file: PathBuf, source: io::Error },
}

/// Applies all `edits` to the package at `package`.
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
    fn only_the_one_matching_place_is_changed() {
        assert_eq!(edited("a; f().unwrap(); b").unwrap(), "a; f()?; b");
    }

    #[test]
    fn an_unexpected_source_is_rejected_with_the_file_and_the_reason() {
        for (source, count) in [("g()", 0), ("f().unwrap(); f().unwrap()", 2)] {
            let error = edited(source).unwrap_err();
            assert!(matches!(error, EditError::Misplaced { count: found, .. } if found == count));
            let text = error.to_string();
            assert!(text.contains("it panics") && text.contains("main.rs"), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let package = tempfile::tempdir().unwrap();
        let error = apply(package.path(), &[EDIT]).unwrap_err();
        assert!(error.to_string().contains("main.rs"), "{error}");
    }
}
