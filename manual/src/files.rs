//! Files of a directory of pages: `DIR/man1/NAME.1`.

use crate::page::ManualPage;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// First argument of a program that writes its pages, followed by the directory and the date. The programs have it only
/// in builds for `cargo xtask man`.
pub const ARGUMENT: &str = "write-manual-pages";

/// Request of `cargo xtask man`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagesRequest {
    /// Directory of the pages.
    pub directory: PathBuf,
    /// Date of the last change.
    pub date: String,
}

/// Returns the request if the arguments of a program, without its name, are one.
#[must_use]
pub fn asked(arguments: impl IntoIterator<Item = OsString>) -> Option<PagesRequest> {
    let mut arguments = arguments.into_iter();
    arguments.next().filter(|first| first == ARGUMENT)?;
    let directory = arguments.next()?.into();
    let date = arguments.next().and_then(|date| date.into_string().ok()).unwrap_or_default();
    Some(PagesRequest { directory, date })
}

/// Writes the pages.
///
/// # Errors
///
/// Failure to write a directory or a file; the error names it.
pub fn write(directory: &Path, pages: &[ManualPage]) -> io::Result<()> {
    for page in pages {
        let section = page.section();
        let directory = directory.join(format!("man{section}"));
        let path = directory.join(format!("{}.{section}", page.name()));
        fs::create_dir_all(&directory).and_then(|()| fs::write(&path, page.roff())).map_err(
            |error| io::Error::new(error.kind(), format!("{}: {error}", path.display())),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_a_directory_and_an_optional_date() {
        let asked = |words: &[&str]| asked(words.iter().map(OsString::from));
        let request = |date: &str| Some(PagesRequest { directory: "d".into(), date: date.into() });
        assert_eq!(asked(&[ARGUMENT, "d", "2026-01-31"]), request("2026-01-31"));
        assert_eq!(asked(&[ARGUMENT, "d"]), request(""));
        for words in [&[][..], &["ls"], &["ls", ARGUMENT, "d"], &[ARGUMENT]] {
            assert_eq!(asked(words), None, "{words:?}");
        }
    }
}
