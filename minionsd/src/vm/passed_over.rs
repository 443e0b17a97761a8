//! Files with the suffix of a VM's socket that are not VM sockets, and the log of them.

use super::socket_dir::Distrust;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

/// Maximum number of file names that are kept for the log. Only trusted users can create files in the directory.
const MAX_NAMED: usize = 256;

/// Reason why a file named `*.vsock` is not a VM's socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PassedOverReason {
    /// The part before `.vsock` is not a VM name.
    Name,
    /// The file is not a socket.
    NotASocket,
}

/// Files that a scan passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PassedOverFiles {
    /// Number of files without a valid VM name.
    pub(crate) names: usize,
    /// Number of files with a VM's name that are not sockets.
    pub(crate) no_sockets: usize,
    /// Up to [`MAX_NAMED`] of the files, for the log.
    named: Vec<(OsString, PassedOverReason)>,
}

impl PassedOverFiles {
    pub(crate) fn add(&mut self, file: &OsStr, why: PassedOverReason) {
        match why {
            PassedOverReason::Name => self.names += 1,
            PassedOverReason::NotASocket => self.no_sockets += 1,
        }
        if self.named.len() < MAX_NAMED {
            self.named.push((file.to_owned(), why));
        }
    }
}

/// Warnings already logged, so that the scan every five seconds does not repeat them.
#[derive(Debug, Default)]
pub(crate) struct ScanLog {
    files: BTreeSet<OsString>,
    /// Reasons why the directory was refused, since it was last accepted.
    refusals: BTreeSet<&'static str>,
}

impl ScanLog {
    /// Warns about files that the previous scan did not find.
    pub(crate) fn scanned(&mut self, passed: &PassedOverFiles) {
        self.refusals.clear();
        for (file, why) in self.new_files(passed) {
            match why {
                PassedOverReason::Name => tracing::warn!(
                    file = ?file,
                    "passed over: the part before `.vsock` is not a VM name; a VM name has 1 to 63 letters, digits, \
                     `.`, `_` and `-`, and begins with a letter or digit"
                ),
                PassedOverReason::NotASocket => tracing::warn!(
                    file = ?file,
                    "passed over: not a socket; remove it, or give it another name"
                ),
            }
        }
    }

    /// Warns that the directory was refused, once for each reason until the directory is accepted again.
    pub(crate) fn refused(&mut self, why: &Distrust) {
        if self.refusals.insert(why.reason()) {
            tracing::warn!("no VMs can be found: {why}");
        }
    }

    fn new_files(&mut self, passed: &PassedOverFiles) -> Vec<(OsString, PassedOverReason)> {
        let met: BTreeSet<_> = passed.named.iter().map(|(file, _)| file.clone()).collect();
        let new = passed.named.iter().filter(|(file, _)| !self.files.contains(file)).cloned();
        let new = new.collect();
        self.files = met;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(files: &[&str]) -> PassedOverFiles {
        let mut passed = PassedOverFiles::default();
        files.iter().for_each(|file| passed.add(file.as_ref(), PassedOverReason::Name));
        passed
    }

    fn new(log: &mut ScanLog, files: &[&str]) -> Vec<String> {
        let new = log.new_files(&passed(files)).into_iter();
        new.map(|(file, _)| file.into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_logged_once_while_it_exists() {
        let mut log = ScanLog::default();
        assert_eq!(new(&mut log, &["a b.vsock"]), ["a b.vsock"]);
        assert_eq!(new(&mut log, &["a b.vsock", "c:d.vsock"]), ["c:d.vsock"]);
        assert!(new(&mut log, &["c:d.vsock"]).is_empty());
        assert_eq!(new(&mut log, &["a b.vsock", "c:d.vsock"]), ["a b.vsock"]);
    }

    #[test]
    fn all_files_are_counted_and_a_bounded_number_of_names_is_kept() {
        let mut passed = PassedOverFiles::default();
        for n in 0..1_000 {
            passed.add(format!("{n}.vsock").as_ref(), PassedOverReason::NotASocket);
        }
        assert_eq!((passed.names, passed.no_sockets, passed.named.len()), (0, 1_000, MAX_NAMED));
    }
}
