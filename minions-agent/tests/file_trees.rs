//! Trees as tar streams in both directions, compared by programs of the guest.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{FileOperation, Outcome, PackTree, UnpackTree};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::RunningAgent;
use support::file::{FileResult, path, run, run_as};

fn pack_of(dir: &Path) -> FileOperation {
    FileOperation::TarOut(PackTree { path: path(dir), xattrs: true })
}

fn unpack_of(dir: &Path) -> UnpackTree {
    UnpackTree { path: path(dir), parents: true, ..UnpackTree::default() }
}

/// Asks for everything that a stream can contain.
fn unpack_all(dir: &Path) -> FileOperation {
    FileOperation::TarIn(UnpackTree { xattrs: true, set_id: true, owners: true, ..unpack_of(dir) })
}

/// Runs a program and returns its standard output.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Describes a tree: names, types, modes, owners, times to the nanosecond, links, contents.
fn describe(dir: &Path) -> String {
    let script = r#"cd "$1" && find . -printf '%p|%y|%m|%U|%G|%T@|%s|%n|%l\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum"#;
    output(Command::new("bash").args(["-c", script, "-"]).arg(dir).env("LC_ALL", "C"))
}

/// Asserts that two descriptions are equal, and shows only the lines that differ.
#[track_caller]
fn assert_same(found: &str, expected: &str) {
    let differ = |of: &str, from: &str| {
        let known: std::collections::BTreeSet<_> = from.lines().collect();
        of.lines().filter(|line| !known.contains(line)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(differ(found, expected), differ(expected, found));
}

/// Creates a tree with every kind of file.
fn plant(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut deep = dir.to_owned();
    for level in 0..20 {
        deep.push(format!("level-{level}"));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("file"), vec![level; 700 * usize::from(level)]).unwrap();
    }
    for name in [&b"caf\xe9 \n"[..], &[b'n'; 200], b"-rf", b"a b"] {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let long: PathBuf = std::iter::repeat_n("directory-with-a-long-name", 6).collect();
    fs::create_dir_all(dir.join(&long)).unwrap();
    fs::write(dir.join(&long).join("file"), "deep").unwrap();
    symlink(long.join("file"), dir.join("long-link")).unwrap();
    symlink("/nowhere", dir.join("dangling")).unwrap();
    fs::hard_link(dir.join("a b"), dir.join("hard")).unwrap();
    fs::hard_link(dir.join(&long).join("file"), dir.join("hard-long")).unwrap();
    mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
    let mode = |name: &str, mode| fs::set_permissions(dir.join(name), Permissions::from_mode(mode));
    fs::write(dir.join("setuid"), "x").unwrap();
    mode("setuid", 0o4711).unwrap();
    fs::create_dir(dir.join("sealed")).unwrap();
    fs::write(dir.join("sealed/inside"), "x").unwrap();
    std::os::unix::fs::chown(dir.join("sealed/inside"), Some(1234), Some(3_000_000)).unwrap();
    let sparse = File::create(dir.join("sparse")).unwrap();
    for part in 0..100_u64 {
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", part * 200_000).unwrap();
    }
    sparse.set_len(30_000_000).unwrap();
    File::create(dir.join("hole")).unwrap().set_len(10_000_000).unwrap();
    File::create(dir.join("empty")).unwrap();
    let old = rustix::fs::Timespec { tv_sec: -5, tv_nsec: 250_000_000 };
    let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
    rustix::fs::utimensat(CWD, dir.join("empty"), &times, rustix::fs::AtFlags::empty()).unwrap();
    let _ = rustix::fs::setxattr(
        dir.join("empty"),
        "user.color",
        b"b\0l\nue",
        rustix::fs::XattrFlags::empty(),
    );
    mode("sealed", 0o500).unwrap();
}

fn blocks(file: &Path) -> u64 {
    fs::metadata(file).unwrap().blocks() * 512
}

#[tokio::test]
async fn a_tree_is_the_same_after_both_directions() {
    let agent = RunningAgent::start().await;
    let (from, to) = (agent.dir().join("from"), agent.dir().join("to/here"));
    plant(&from);
    let (header, tar) = run(&agent, pack_of(&from), b"").await.success();
    assert_eq!(header.metadata.mode, 0o755);
    assert!(tar.len() < 2_000_000, "holes are not sent: {} bytes", tar.len());
    let (header, _) = run(&agent, unpack_all(&to), &tar).await.success();
    let files =
        output(Command::new("bash").args(["-c", "find \"$1\" -printf x | wc -c", "-"]).arg(&from));
    assert_eq!(header.count, Some(files.trim().parse().unwrap()));
    assert_same(&describe(&to), &describe(&from));
    assert!(blocks(&to.join("sparse")) < 2_000_000 && blocks(&to.join("hole")) < 100_000);
    let color = |dir: &Path| {
        let mut value = [0; 16];
        rustix::fs::getxattr(dir.join("empty"), "user.color", &mut value[..]).map(|_| value)
    };
    assert_eq!(color(&from), color(&to));
    // Onto itself: files are replaced, directories stay, and the destination keeps its own attributes.
    run(&agent, unpack_all(&to), &tar).await.success();
    output(Command::new("touch").arg("-r").arg(&from).arg(&to));
    assert_same(&describe(&to), &describe(&from));
}

#[tokio::test]
async fn other_programs_read_and_write_the_same_streams() {
    let agent = RunningAgent::start().await;
    let from = agent.dir().join("from");
    plant(&from);
    let (_, tar) = run(&agent, pack_of(&from), b"").await.success();
    let archive = agent.dir().join("packed.tar");
    fs::write(&archive, &tar).unwrap();
    let to = agent.dir().join("gnu");
    fs::create_dir(&to).unwrap();
    output(Command::new("tar").args(["-xpf"]).arg(&archive).arg("-C").arg(&to));
    assert_same(&describe(&to), &describe(&from));
    output(
        Command::new("python3")
            .args(["-c", "import sys, tarfile; tarfile.open(sys.argv[1]).getmembers()"])
            .arg(&archive),
    );

    for format in ["gnu", "posix"] {
        // GNU tar marks holes in the PAX format in a way of its own, which is refused.
        let sparse = if format == "gnu" { "--sparse" } else { "--no-recursion-x" };
        let mut command = Command::new("tar");
        command.args(["-c", &format!("--format={format}"), "-C"]).arg(&from);
        if format == "gnu" {
            command.arg(sparse);
        } else {
            command.args(["--exclude=./sparse", "--exclude=./hole"]);
        }
        let made = command.arg(".").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let to = agent.dir().join(format!("from-{format}"));
        run(&agent, unpack_all(&to), &made.stdout).await.success();
        if format == "posix" {
            for hole in ["sparse", "hole"] {
                output(
                    Command::new("cp")
                        .args(["-a", "--sparse=always"])
                        .arg(from.join(hole))
                        .arg(&to),
                );
            }
            // Copying into the root changed its time.
            output(Command::new("touch").arg("-r").arg(&from).arg(&to));
            assert_same(&describe(&to), &describe(&from));
        } else {
            // This format has whole seconds only.
            let seconds = |text: String| {
                let lines = text.lines().map(|line| {
                    let mut fields: Vec<_> = line.split('|').collect();
                    if fields.len() > 5 {
                        fields[5] = fields[5].split('.').next().unwrap();
                    }
                    fields.join("|")
                });
                lines.filter(|line| !line.starts_with("./empty")).collect::<Vec<_>>().join("\n")
            };
            assert_same(&seconds(describe(&to)), &seconds(describe(&from)));
        }
    }
    let pax = Command::new("tar")
        .args(["-c", "--format=posix", "--sparse", "-C"])
        .arg(&from)
        .arg("hole")
        .output()
        .unwrap();
    let refused = run(&agent, unpack_all(&agent.dir().join("pax")), &pax.stdout).await.errno();
    assert_eq!(refused, ("EOPNOTSUPP".into(), "tar".into()));
}

#[tokio::test]
async fn without_the_options_files_belong_to_the_user_and_have_no_special_bits() {
    let agent = RunningAgent::start().await;
    let (from, to) = (agent.dir().join("from"), agent.dir().join("to"));
    plant(&from);
    let (_, tar) = run(&agent, pack_of(&from), b"").await.success();
    fs::create_dir(&to).unwrap();
    std::os::unix::fs::chown(&to, Some(65_534), None).unwrap();
    fs::set_permissions(&to, Permissions::from_mode(0o700)).unwrap();
    let agent_dir = Permissions::from_mode(0o755);
    fs::set_permissions(agent.dir(), agent_dir).unwrap();
    run_as(&agent, "nobody", FileOperation::TarIn(unpack_of(&to)), &tar).await.success();
    let setuid = fs::metadata(to.join("setuid")).unwrap();
    assert_eq!((setuid.mode() & 0o7777, setuid.uid()), (0o711, 65_534));
    assert_eq!(fs::metadata(to.join("sealed/inside")).unwrap().uid(), 65_534);
    // The destination existed: the stream does not change it.
    assert_eq!(fs::metadata(&to).unwrap().mode() & 0o7777, 0o700);
}

#[tokio::test]
async fn file_capabilities_are_set_only_with_the_option_for_set_user_id() {
    let agent = RunningAgent::start().await;
    let from = agent.dir().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("ping"), "x").unwrap();
    // `struct vfs_cap_data`, revision 2, effective: CAP_NET_RAW is permitted.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let new = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(from.join("ping"), "security.capability", &capability, new).unwrap();
    let (_, tar) = run(&agent, pack_of(&from), b"").await.success();
    for set_id in [false, true] {
        let to = agent.dir().join(format!("to-{set_id}"));
        let unpack = UnpackTree { xattrs: true, set_id, ..unpack_of(&to) };
        run(&agent, FileOperation::TarIn(unpack), &tar).await.success();
        let mut value = [0; 32];
        let found = rustix::fs::getxattr(to.join("ping"), "security.capability", &mut value[..]);
        assert_eq!(found, if set_id { Ok(20) } else { Err(rustix::io::Errno::NODATA) });
    }
}

#[tokio::test]
async fn members_that_cannot_be_read_are_warnings_and_the_rest_arrives() {
    let agent = RunningAgent::start().await;
    let (from, to) = (agent.dir().join("from"), agent.dir().join("to"));
    fs::create_dir(&from).unwrap();
    for name in ["a", "secret", "z"] {
        fs::write(from.join(name), name).unwrap();
    }
    fs::set_permissions(from.join("secret"), Permissions::from_mode(0o000)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o755)).unwrap();
    let packed = run_as(&agent, "nobody", pack_of(&from), b"").await;
    assert_eq!(packed.outcome, Outcome::Exited { code: 1 });
    let mut warned: Vec<_> = packed
        .failures
        .iter()
        .map(|one| (one.errno.as_str(), one.path.rsplit('/').next().unwrap(), one.warning))
        .collect();
    warned.sort_unstable();
    assert_eq!(warned, [("EACCES", "secret", true), ("EOPNOTSUPP", "socket", true)]);
    let (_, tar) = packed.header();
    run(&agent, unpack_all(&to), &tar).await.success();
    let mut names: Vec<_> =
        fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "z"]);
}

#[tokio::test]
async fn a_single_file_is_packed_under_its_name() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, "content").unwrap();
    let FileResult { stdout, .. } = run(&agent, pack_of(&file), b"").await;
    let at = stdout.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut archive = tar::Archive::new(&stdout[at..]);
    let names: Vec<_> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().into_owned()).collect();
    assert_eq!(names, [b"file"]);
    let missing = run(&agent, pack_of(&agent.dir().join("missing")), b"").await.errno();
    assert_eq!(missing, ("ENOENT".into(), "open".into()));
}
