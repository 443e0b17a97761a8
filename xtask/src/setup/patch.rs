//! Patches to third-party source, which fail if that source is not the expected one.

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
};

/// Patch in unified format. The text before its first `---` says why it is needed.
#[derive(Debug, Hash)]
pub(crate) struct SourcePatch {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// Failure to patch the source.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("cannot run patch(1)")]
    Run(#[source] io::Error),
    #[error("{name} does not fit this source:\n{output}")]
    Rejected { name: &'static str, output: String },
}

/// Applies all `patches` to the package at `package`, in this order.
pub(crate) fn apply(package: &Path, patches: &[SourcePatch]) -> Result<(), PatchError> {
    patches.iter().try_for_each(|patch| patch.apply(package))
}

impl SourcePatch {
    fn apply(&self, package: &Path) -> Result<(), PatchError> {
        let mut child = Command::new("patch")
            // Without fuzz, every line of context must be there.
            .args(["--strip=1", "--fuzz=0", "--forward", "--batch", "--no-backup-if-mismatch"])
            .arg("--directory")
            .arg(package)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(PatchError::Run)?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(self.text.as_bytes()).map_err(PatchError::Run)?;
        }
        let output = child.wait_with_output().map_err(PatchError::Run)?;
        if output.status.success() {
            return Ok(());
        }
        let output = [output.stdout, output.stderr].concat();
        let output = String::from_utf8_lossy(&output).into_owned();
        Err(PatchError::Rejected { name: self.name, output })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PATCH: SourcePatch = SourcePatch {
        name: "no-panic.patch",
        text: "It panics.\n\n--- a/main.rs\n+++ b/main.rs\n@@ -1,3 +1,3 @@\n a\n-f().unwrap()\n+f()?\n b\n",
    };

    fn patched(source: &str) -> Result<String, PatchError> {
        let package = tempfile::tempdir().unwrap();
        let file = package.path().join("main.rs");
        fs::write(&file, source).unwrap();
        apply(package.path(), &[PATCH])?;
        Ok(fs::read_to_string(file).unwrap())
    }

    #[test]
    fn only_the_matching_place_is_changed() {
        assert_eq!(patched("a\nf().unwrap()\nb\n").unwrap(), "a\nf()?\nb\n");
        // Further down in the file, but with the same context.
        assert_eq!(patched("x\na\nf().unwrap()\nb\n").unwrap(), "x\na\nf()?\nb\n");
    }

    #[test]
    fn an_unexpected_source_is_rejected_with_the_file_and_the_patch() {
        for source in ["a\ng()\nb\n", "x\nf().unwrap()\nb\n", "a\nf()?\nb\n"] {
            let text = patched(source).unwrap_err().to_string();
            assert!(text.contains("no-panic.patch") && text.contains("main.rs"), "{text}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let package = tempfile::tempdir().unwrap();
        let error = apply(package.path(), &[PATCH]).unwrap_err();
        assert!(error.to_string().contains("main.rs"), "{error}");
    }
}
