//! Contents of `/etc/passwd` and `/etc/group`, which are read again only after they have changed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Age of the last change from which the contents are kept. A file system with coarse times gives two changes within a
/// few milliseconds the same time.
const SETTLED: Duration = Duration::from_secs(2);

/// A file with the contents that were read last.
#[derive(Debug)]
pub(super) struct UserFile {
    pub(super) path: &'static str,
    kept: Mutex<Option<(FileStamp, Arc<str>)>>,
}

/// Properties of a file that change with its contents: device, inode, size, and times of the last change in seconds and
/// nanoseconds.
type FileStamp = (u64, u64, u64, [(i64, i64); 2]);

impl UserFile {
    pub(super) const fn new(path: &'static str) -> Self {
        Self { path, kept: Mutex::new(None) }
    }

    /// Returns the contents; those of a file that does not exist are empty.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(super) fn read(&self) -> io::Result<Arc<str>> {
        match self.read_existing() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("".into()),
            read => read,
        }
    }

    fn read_existing(&self) -> io::Result<Arc<str>> {
        let stamp = stamp(&fs::metadata(self.path)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, text)) = &*kept
            && *of == stamp
        {
            return Ok(Arc::clone(text));
        }
        *kept = None;
        let mut file = File::open(self.path)?;
        let metadata = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text: Arc<str> = String::from_utf8_lossy(&bytes).into();
        if is_settled(&metadata) {
            *kept = Some((self::stamp(&metadata), Arc::clone(&text)));
        }
        Ok(text)
    }
}

fn stamp(metadata: &Metadata) -> FileStamp {
    let times =
        [(metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec())];
    (metadata.dev(), metadata.ino(), metadata.size(), times)
}

/// Reports whether a later change will have another time.
fn is_settled(metadata: &Metadata) -> bool {
    let changed = u64::try_from(metadata.ctime()).ok().map(Duration::from_secs);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    changed.zip(now).is_some_and(|(changed, now)| now.saturating_sub(changed) > SETTLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaked(path: &std::path::Path) -> &'static str {
        path.to_str().unwrap().to_owned().leak()
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_recent_one_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        let file = UserFile::new(leaked(&path));
        assert_eq!(&*file.read().unwrap(), "");
        fs::write(&path, "one").unwrap();
        assert_eq!(&*file.read().unwrap(), "one");
        assert!(file.kept.lock().unwrap().is_none(), "it was changed just now");
        fs::write(&path, "two").unwrap();
        assert_eq!(&*file.read().unwrap(), "two");
        fs::remove_file(&path).unwrap();
        assert_eq!(&*file.read().unwrap(), "");
    }

    #[test]
    fn an_unchanged_file_is_kept_until_another_has_its_name() {
        let file = UserFile::new("/etc/hostname-of-no-guest");
        assert_eq!(&*file.read().unwrap(), "");
        let file = UserFile::new("/etc/passwd");
        let first = file.read().unwrap();
        assert!(Arc::ptr_eq(&first, &file.read().unwrap()), "read twice");
        let other = (0, 0, 0, [(0, 0); 2]);
        *file.kept.lock().unwrap() = Some((other, "stale".into()));
        assert_eq!(file.read().unwrap(), first);
    }
}
