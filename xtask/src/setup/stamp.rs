//! Remembering what something was made from.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

/// A file that names the inputs of a finished result.
#[derive(Debug)]
pub(crate) struct Stamp {
    path: PathBuf,
    value: String,
}

impl Stamp {
    /// The stamp at `path` for a result made from `inputs`.
    ///
    /// The hash is not the same in every version of Rust; then the result is made once more.
    pub(crate) fn of(path: impl Into<PathBuf>, inputs: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        inputs.hash(&mut hasher);
        Self { path: path.into(), value: format!("{:016x}\n", hasher.finish()) }
    }

    /// Whether `result` exists and was made from these inputs.
    pub(crate) fn is_fresh(&self, result: &Path) -> bool {
        result.exists() && fs::read_to_string(&self.path).is_ok_and(|value| value == self.value)
    }

    /// To be called when the result is complete.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::write(&self.path, &self.value)
    }
}
