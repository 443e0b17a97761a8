//! Steps about what identifies the machine: random numbers, hostname, machine id.
#![expect(unsafe_code, reason = "the ioctls of /dev/random have no safe wrapper")]

use super::steps::StepResult;
use crate::error_chain;
use libc::{c_int, c_ulong};
use minions_tree::files::{FileAttributes, replace_or_overwrite};
use rustix::io::Errno;
use rustix::system::sethostname;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Adds bytes to the input pool of the kernel's random number generator, with credit: `_IOW('R', 3, int[2])` of
/// linux/random.h.
const RNDADDENTROPY: c_ulong = 0x4008_5203;

/// Reseeds the generator from its input pool: `_IO('R', 7)`. Without it, a seeded generator goes on with its old key
/// for up to a minute.
const RNDRESEEDCRNG: c_ulong = 0x5207;

/// Longest hostname, in bytes (`HOST_NAME_MAX`).
const MAX_HOSTNAME: usize = 64;

const CREATED: FileAttributes = FileAttributes { mode: 0o644, owner: None };

/// Reseeds the kernel's random number generator with these bytes. Writing them to `/dev/urandom` would only change
/// the input pool, which the generator reads a minute later.
pub(super) fn reseed(bytes: &[u8]) -> StepResult {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    let random = OpenOptions::new().write(true).open("/dev/random");
    let random = random.map_err(|error| failed("cannot open /dev/random", error))?;
    add_entropy(&random, bytes).map_err(|error| failed("RNDADDENTROPY", error))?;
    // SAFETY: this ioctl has no argument.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) };
    if reseeded != 0 {
        return Err(failed("RNDRESEEDCRNG", io::Error::last_os_error()));
    }
    Ok(format!("reseeded with {} bytes", bytes.len()))
}

fn add_entropy(random: &File, bytes: &[u8]) -> io::Result<()> {
    let len = c_int::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // `struct rand_pool_info`: number of bits with credit, number of bytes, bytes.
    let mut pool = Vec::with_capacity(2 * size_of::<c_int>() + bytes.len());
    pool.extend_from_slice(&(len * 8).to_ne_bytes());
    pool.extend_from_slice(&len.to_ne_bytes());
    pool.extend_from_slice(bytes);
    // SAFETY: the kernel reads the two numbers, and then as many bytes as the second one says, which follow them. It
    // copies them, so that the buffer needs no alignment.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, pool.as_ptr()) };
    if added == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the hostname of the kernel, and writes it to `/etc/hostname`.
pub(super) fn set_hostname(etc: &Path, name: &str) -> StepResult {
    check_hostname(name)?;
    sethostname(name.as_bytes()).map_err(|errno| format!("cannot set the hostname: {errno}"))?;
    // An image with a read-only root has its name from elsewhere.
    match replace_or_overwrite(&etc.join("hostname"), format!("{name}\n").as_bytes(), CREATED) {
        Ok(()) => Ok(name.to_owned()),
        Err(error) => {
            Ok(format!("{name}, until the next boot: cannot write /etc/hostname: {error}"))
        }
    }
}

fn check_hostname(name: &str) -> Result<(), String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if (1..=MAX_HOSTNAME).contains(&name.len()) && name.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(format!("{name:?} is no hostname: must be 1 to {MAX_HOSTNAME} of A-Z a-z 0-9 . _ -"))
}

/// Writes a new random id to `/etc/machine-id`. Services that read the old one keep it until they are restarted.
pub(super) fn renew_machine_id(etc: &Path) -> StepResult {
    let path = etc.join("machine-id");
    // A guest without the file has no service that would read it.
    if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    {
        return Ok("the guest has no /etc/machine-id".to_owned());
    }
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid");
    let uuid = uuid.map_err(|error| format!("cannot read a random id: {error}"))?;
    let id: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let written = replace_or_overwrite(
        &path,
        format!("{id}\n").as_bytes(),
        FileAttributes { mode: 0o444, owner: None },
    );
    match written {
        Ok(()) => Ok("renewed".to_owned()),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ROFS) => {
            Err("/etc/machine-id is on a read-only file system".to_owned())
        }
        Err(error) => Err(format!("cannot write /etc/machine-id: {}", error_chain(&error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_id_is_renewed_only_where_there_is_one() {
        let etc = tempfile::tempdir().unwrap();
        let path = etc.path().join("machine-id");
        renew_machine_id(etc.path()).unwrap();
        assert!(!path.exists());
        let old = "0123456789abcdef0123456789abcdef\n";
        fs::write(&path, old).unwrap();
        renew_machine_id(etc.path()).unwrap();
        let new = fs::read_to_string(&path).unwrap();
        assert!(new != old && new.len() == old.len(), "{new:?}");
        assert!(new.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_hostname_is_checked_before_it_is_set() {
        for name in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(set_hostname(Path::new("/nonexistent"), name).is_err(), "{name:?}");
        }
        check_hostname("web-1.example").unwrap();
    }
}
