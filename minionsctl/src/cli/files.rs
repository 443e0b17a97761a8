//! Arguments of `fs`, and locations of files.

use clap::{Args, Subcommand};
use minions_api::VmName;
use minions_proto::Invalid;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Arguments of `fs`.
#[derive(Debug, Args)]
pub(crate) struct FsArgs {
    /// User of the guest whose rights apply, by name or number (default: root)
    #[arg(short, long, global = true, value_name = "USER")]
    pub(crate) user: Option<String>,
    #[command(subcommand)]
    pub(crate) command: FsCommand,
}

/// Commands for files of a guest.
#[derive(Debug, Subcommand)]
pub(crate) enum FsCommand {
    /// List a directory
    Ls {
        /// Directory or file: VM:/PATH
        #[arg(value_parser = guest_file, value_name = "VM:PATH")]
        file: GuestFile,
    },
    /// Print a file
    Cat {
        /// File: VM:/PATH
        #[arg(value_parser = guest_file, value_name = "VM:PATH")]
        file: GuestFile,
    },
    /// Print the metadata of a file
    Stat {
        /// File: VM:/PATH
        #[arg(value_parser = guest_file, value_name = "VM:PATH")]
        file: GuestFile,
        /// Describe the target of a symbolic link instead of the link
        #[arg(short = 'L', long)]
        dereference: bool,
    },
    /// Create a directory
    Mkdir {
        /// Directory: VM:/PATH
        #[arg(value_parser = guest_file, value_name = "VM:PATH")]
        file: GuestFile,
        /// Create missing parents, and accept a directory that exists
        #[arg(short, long)]
        parents: bool,
        /// Permission bits in octal (default: 755)
        #[arg(short, long, value_name = "MODE")]
        mode: Option<String>,
    },
    /// Rename a file or a directory within its file system
    Mv {
        /// File: VM:/PATH
        #[arg(value_parser = guest_file, value_name = "VM:PATH")]
        file: GuestFile,
        /// New name: /PATH, or VM:/PATH with the same VM
        to: OsString,
        /// Fail if the new name exists
        #[arg(short, long)]
        no_clobber: bool,
    },
    /// Remove files
    Rm {
        /// Files: VM:/PATH
        #[arg(required = true, value_parser = guest_file, value_name = "VM:PATH")]
        files: Vec<GuestFile>,
        /// Remove directories with everything beneath them
        #[arg(short, long)]
        recursive: bool,
    },
}

/// File of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestFile {
    pub(crate) vm: VmName,
    /// Absolute path, which need not be UTF-8.
    pub(crate) path: Vec<u8>,
}

/// Location of a file, in a guest or on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileLocation {
    /// `VM:/PATH`.
    Guest(GuestFile),
    /// A path on this host.
    Host(PathBuf),
}

impl FileLocation {
    /// Parses a location. As in docker and scp, the text before a colon is a VM if no slash precedes the colon: `./a:b`
    /// is a path on this host.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, Invalid> {
        let bytes = text.as_bytes();
        let colon = bytes.iter().position(|byte| *byte == b':');
        let slash = bytes.iter().position(|byte| *byte == b'/').unwrap_or(bytes.len());
        match colon {
            Some(colon) if colon < slash => {
                let (vm, path) = (&bytes[..colon], &bytes[colon + 1..]);
                guest(text, vm, path).map(Self::Guest)
            }
            _ => Ok(Self::Host(OsString::from_vec(bytes.to_vec()).into())),
        }
    }
}

fn guest(text: &OsStr, vm: &[u8], path: &[u8]) -> Result<GuestFile, Invalid> {
    let shown = text.to_string_lossy();
    let vm = String::from_utf8_lossy(vm);
    let vm = vm.parse().map_err(|error| Invalid::value("VM", &vm, &format!("{error}")))?;
    if path.first() != Some(&b'/') {
        let reason = "must have an absolute path after the colon: VM:/PATH";
        return Err(Invalid::value("file", &shown, reason));
    }
    Ok(GuestFile { vm, path: path.to_vec() })
}

/// Parses `VM:/PATH`.
fn guest_file(text: &str) -> Result<GuestFile, Invalid> {
    match FileLocation::parse(OsStr::new(text))? {
        FileLocation::Guest(file) => Ok(file),
        FileLocation::Host(_) => Err(Invalid::value("file", text, "must be VM:/PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(text: &str) -> FileLocation {
        FileLocation::parse(OsStr::new(text)).unwrap()
    }

    #[test]
    fn a_colon_before_the_first_slash_separates_the_vm() {
        let guest = |vm: &str, path: &[u8]| {
            FileLocation::Guest(GuestFile { vm: vm.parse().unwrap(), path: path.to_vec() })
        };
        assert_eq!(location("web-1:/a:b"), guest("web-1", b"/a:b"));
        assert_eq!(location("./web-1:/a"), FileLocation::Host("./web-1:/a".into()));
        assert_eq!(location("a/b"), FileLocation::Host("a/b".into()));
        let odd = FileLocation::parse(OsStr::from_bytes(b"web-1:/\xff")).unwrap();
        assert_eq!(odd, guest("web-1", b"/\xff"));
    }

    #[test]
    fn a_location_in_a_guest_needs_a_valid_vm_and_an_absolute_path() {
        for text in ["web-1:a", "web-1:", "we b:/a", "..:/a"] {
            assert!(FileLocation::parse(OsStr::new(text)).is_err(), "{text}");
        }
        assert!(guest_file("/a").is_err());
    }
}
