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

/// A `struct rand_pool_info` of linux/random.h: number of bits with credit, number of bytes, bytes.
struct PoolInfo(Vec<u8>);

/// Random number generator of a kernel.
trait RandomGenerator {
    /// `RNDADDENTROPY`: adds bytes to the input pool.
    fn add_entropy(&mut self, info: &PoolInfo) -> io::Result<()>;

    /// `RNDRESEEDCRNG`: makes the generator read its input pool now.
    fn reseed(&mut self) -> io::Result<()>;
}

/// Generator of the running kernel, by its device.
struct KernelGenerator(File);

/// Reseeds the kernel's random number generator with these bytes. Writing them to `/dev/urandom` would only change
/// the input pool, which the generator reads a minute later.
pub(super) fn reseed(bytes: &[u8]) -> StepResult {
    let random = OpenOptions::new().write(true).open("/dev/random");
    let random = random.map_err(|error| format!("cannot open /dev/random: {error}"))?;
    reseed_with(&mut KernelGenerator(random), bytes)
}

fn reseed_with(generator: &mut impl RandomGenerator, bytes: &[u8]) -> StepResult {
    let info = PoolInfo::of(bytes).ok_or("too many bytes")?;
    generator.add_entropy(&info).map_err(|error| format!("RNDADDENTROPY: {error}"))?;
    generator.reseed().map_err(|error| format!("RNDRESEEDCRNG: {error}"))?;
    Ok(format!("reseeded with {} bytes", bytes.len()))
}

impl PoolInfo {
    fn of(bytes: &[u8]) -> Option<Self> {
        let len = c_int::try_from(bytes.len()).ok()?;
        let bits = len.checked_mul(8)?;
        Some(Self([&bits.to_ne_bytes()[..], &len.to_ne_bytes(), bytes].concat()))
    }
}

impl RandomGenerator for KernelGenerator {
    fn add_entropy(&mut self, info: &PoolInfo) -> io::Result<()> {
        // SAFETY: the kernel reads the two numbers, and then as many bytes as the second one says, which follow them. It
        // copies them, so that the buffer needs no alignment.
        let added = unsafe { libc::ioctl(self.0.as_raw_fd(), RNDADDENTROPY as _, info.0.as_ptr()) };
        if added == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn reseed(&mut self) -> io::Result<()> {
        // SAFETY: this ioctl has no argument.
        let reseeded = unsafe { libc::ioctl(self.0.as_raw_fd(), RNDRESEEDCRNG as _) };
        if reseeded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
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

/// Writes a new random id to `/etc/machine-id`, and to `dbus` if that file has the old one. Services that read the old id
/// keep it until they are restarted.
pub(super) fn renew_machine_id(etc: &Path, dbus: &Path) -> StepResult {
    let path = etc.join("machine-id");
    // A guest without the file has no service that would read it.
    if matches!(fs::symlink_metadata(&path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    {
        return Ok("the guest has no /etc/machine-id".to_owned());
    }
    let old = match fs::read(&path) {
        // A link without a target.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| format!("cannot read /etc/machine-id: {error}"))?,
    };
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid");
    let uuid = uuid.map_err(|error| format!("cannot read a random id: {error}"))?;
    let id: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    let id = format!("{id}\n");
    let has_copy = is_copy(dbus, &old);
    write_id(&path, id.as_bytes()).map_err(|reason| format!("/etc/machine-id {reason}"))?;
    if !has_copy {
        return Ok("renewed".to_owned());
    }
    match write_id(dbus, id.as_bytes()) {
        Ok(()) => Ok(format!("renewed, also in {}", dbus.display())),
        Err(reason) => {
            // Otherwise the next attempt would not find the old id in the copy. It fails only if the file has become
            // read-only since.
            let _ = write_id(&path, &old);
            Err(format!("{} {reason}", dbus.display()))
        }
    }
}

/// Reports whether a file holds this id. A link to the file of the id follows it by itself.
fn is_copy(dbus: &Path, id: &[u8]) -> bool {
    let is_file = fs::symlink_metadata(dbus).is_ok_and(|metadata| metadata.is_file());
    is_file && fs::read(dbus).is_ok_and(|copy| copy.trim_ascii() == id.trim_ascii())
}

/// Replaces a file with a machine id. The error continues a sentence that begins with its name.
fn write_id(path: &Path, id: &[u8]) -> Result<(), String> {
    let written = replace_or_overwrite(path, id, FileAttributes { mode: 0o444, owner: None });
    written.map_err(|error| {
        if Errno::from_io_error(&error) == Some(Errno::ROFS) {
            return "is on a read-only file system".to_owned();
        }
        format!("cannot be written: {}", error_chain(&error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records what a kernel would get.
    #[derive(Default)]
    struct RecordedGenerator {
        calls: Vec<&'static str>,
        info: Vec<u8>,
    }

    impl RandomGenerator for RecordedGenerator {
        fn add_entropy(&mut self, info: &PoolInfo) -> io::Result<()> {
            self.calls.push("RNDADDENTROPY");
            self.info.clone_from(&info.0);
            Ok(())
        }

        fn reseed(&mut self) -> io::Result<()> {
            self.calls.push("RNDRESEEDCRNG");
            Ok(())
        }
    }

    #[test]
    fn the_kernel_gets_all_bytes_with_full_credit_and_then_reseeds() {
        let mut generator = RecordedGenerator::default();
        let bytes: Vec<u8> = (0..64).collect();
        assert_eq!(reseed_with(&mut generator, &bytes).unwrap(), "reseeded with 64 bytes");
        assert_eq!(generator.calls, ["RNDADDENTROPY", "RNDRESEEDCRNG"]);
        let [bits, len] = [512_i32.to_ne_bytes(), 64_i32.to_ne_bytes()];
        assert_eq!(generator.info, [&bits[..], &len, &bytes].concat());
    }

    const OLD: &str = "0123456789abcdef0123456789abcdef\n";

    #[test]
    fn a_machine_id_is_renewed_only_where_there_is_one() {
        let etc = tempfile::tempdir().unwrap();
        let (path, dbus) = (etc.path().join("machine-id"), etc.path().join("dbus"));
        renew_machine_id(etc.path(), &dbus).unwrap();
        assert!(!path.exists());
        fs::write(&path, OLD).unwrap();
        assert_eq!(renew_machine_id(etc.path(), &dbus).unwrap(), "renewed");
        let new = fs::read_to_string(&path).unwrap();
        assert!(new != OLD && new.len() == OLD.len(), "{new:?}");
        assert!(new.trim_end().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(!dbus.exists());
    }

    #[test]
    fn a_copy_of_the_machine_id_gets_the_new_one_and_other_files_remain() {
        let etc = tempfile::tempdir().unwrap();
        let (path, dbus) = (etc.path().join("machine-id"), etc.path().join("dbus"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        fs::write(&path, OLD).unwrap();
        // Without the end of the line.
        fs::write(&dbus, OLD.trim_end()).unwrap();
        renew_machine_id(etc.path(), &dbus).unwrap();
        assert_ne!(read(&path), OLD);
        assert_eq!(read(&dbus), read(&path));
        // An id of its own.
        fs::write(&dbus, OLD).unwrap();
        assert_eq!(renew_machine_id(etc.path(), &dbus).unwrap(), "renewed");
        assert_eq!(read(&dbus), OLD);
        // A link to the file.
        fs::remove_file(&dbus).unwrap();
        std::os::unix::fs::symlink(&path, &dbus).unwrap();
        assert_eq!(renew_machine_id(etc.path(), &dbus).unwrap(), "renewed");
        assert!(fs::symlink_metadata(&dbus).unwrap().is_symlink());
        assert_eq!(read(&dbus), read(&path));
    }

    #[test]
    fn a_hostname_is_checked_before_it_is_set() {
        for name in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(set_hostname(Path::new("/nonexistent"), name).is_err(), "{name:?}");
        }
        check_hostname("web-1.example").unwrap();
    }
}
