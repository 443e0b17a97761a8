//! Reads declarations files.

use crate::bounded_file;
use crate::failure::Failure;
use crate::local::read_all;
use minions_api::declaration::Declaration;
use minions_api::pool::Pool;
use minions_declare::document::{Document, DocumentError, DocumentFormat, MAX_LEN};
use std::io;
use std::path::{Path, PathBuf};

/// Content of all files, and the file of each item.
#[derive(Debug, Default)]
pub(super) struct DeclaredFiles {
    pub(super) pools: Vec<Pool>,
    pub(super) declarations: Vec<Declaration>,
    /// File of each pool, and of each declaration.
    sources: [Vec<PathBuf>; 2],
}

impl DeclaredFiles {
    /// Reads files, the files of directories, and standard input for `-`.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut all = Self::default();
        for path in paths {
            if path == Path::new("-") {
                let bytes = read_all(MAX_LEN).map_err(Failure::Input)?;
                all.add(Path::new("standard input"), bytes, DocumentFormat::Yaml)?;
            } else if path.is_dir() {
                for (file, format) in files_in(path)? {
                    all.add_file(&file, format)?;
                }
            } else {
                // A file with another name, such as a pipe of the shell, has YAML.
                let format = DocumentFormat::of_path(path).unwrap_or(DocumentFormat::Yaml);
                all.add_file(path, format)?;
            }
        }
        Ok(all)
    }

    fn add_file(&mut self, path: &Path, format: DocumentFormat) -> Result<(), Failure> {
        let failed = |source| Failure::File { path: path.to_owned(), source };
        let bytes = bounded_file::read(path, MAX_LEN).map_err(failed)?;
        self.add(path, bytes, format)
    }

    fn add(&mut self, path: &Path, bytes: Vec<u8>, format: DocumentFormat) -> Result<(), Failure> {
        let malformed = |source| Failure::Declarations { path: path.to_owned(), source };
        if bytes.len() > MAX_LEN {
            return Err(malformed(DocumentError::TooLong { len: bytes.len() }));
        }
        let text = String::from_utf8(bytes).map_err(|error| Failure::File {
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let Document { pools, declarations } = Document::parse(&text, format).map_err(malformed)?;
        self.sources[0].extend(pools.iter().map(|_| path.to_owned()));
        self.sources[1].extend(declarations.iter().map(|_| path.to_owned()));
        self.pools.extend(pools);
        self.declarations.extend(declarations);
        Ok(())
    }

    /// Describes the item that a field of the request belongs to: `declarations[3].network.pool`.
    pub(super) fn describe(&self, field: &str) -> Option<String> {
        let (list, rest) = field.split_once('[')?;
        let index: usize = rest.split_once(']')?.0.parse().ok()?;
        let (name, source) = match list {
            "pools" => (&self.pools.get(index)?.name, self.sources[0].get(index)?),
            "declarations" => (&self.declarations.get(index)?.name, self.sources[1].get(index)?),
            _ => return None,
        };
        Some(format!("{list}[{index}] is {name:?} in {}", source.display()))
    }
}

/// Returns the declarations files of a directory, by name.
fn files_in(directory: &Path) -> Result<Vec<(PathBuf, DocumentFormat)>, Failure> {
    let failed = |source| Failure::File { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(format) = DocumentFormat::of_path(&path).filter(|_| path.is_file()) {
            files.push((path, format));
        }
    }
    files.sort_by(|one, other| one.0.cmp(&other.0));
    if files.is_empty() {
        let message = "the directory has no file *.yaml, *.yml, *.json or *.toml";
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, message)));
    }
    Ok(files)
}
