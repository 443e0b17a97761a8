//! Records of the inputs from which something was built.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// File with a hash of the inputs of a finished result.
#[derive(Debug)]
pub(crate) struct InputStamp {
    path: PathBuf,
    value: String,
}

impl InputStamp {
    /// Creates the stamp at `path` for a result built from `inputs`.
    ///
    /// The hash may differ between versions of Rust; the result is then built once more.
    pub(crate) fn of(path: impl Into<PathBuf>, inputs: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        inputs.hash(&mut hasher);
        Self { path: path.into(), value: format!("{:016x}\n", hasher.finish()) }
    }

    /// Reports whether `result` exists and was built from these inputs.
    pub(crate) fn is_fresh(&self, result: &Path) -> bool {
        result.exists() && fs::read_to_string(&self.path).is_ok_and(|value| value == self.value)
    }

    /// Writes the file; to be called when the result is complete.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::write(&self.path, &self.value)
    }
}
