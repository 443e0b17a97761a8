//! A large file and a tree of small ones, in both directions, all on this host.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use super::growth::MemoryGrowth;
use crate::{
    contenders::ssh::SshConnection,
    figures::{
        clock::{milliseconds, timed},
        report::{BenchReport, FigureAim, FigureUnit, ReportRow},
        series::RoundSeries,
    },
    programs::{MeasuredPrograms, WorkAmount, foreground::succeed},
    site::{self, MeasuredDaemon, VM},
};

/// Size of a small file, in bytes.
const SMALL: usize = 1024;

/// Number of small files in each directory of the tree.
const IN_A_DIRECTORY: usize = 100;

/// Programs that copy files.
#[derive(Debug, Clone, Copy)]
enum CopyProgram {
    Minionsctl,
    Scp,
    Sftp,
    Rsync,
}

/// Direction of a copy. The "guest" is a directory of this host in which the agent works.
#[derive(Debug, Clone, Copy)]
enum CopyDirection {
    ToGuest,
    FromGuest,
}

/// Times of all programs for the same files in one direction, in milliseconds.
#[derive(Debug, Default)]
struct CopyTimes {
    minionsctl: RoundSeries,
    scp: RoundSeries,
    sftp: RoundSeries,
    rsync: RoundSeries,
}

/// Environment shared by all measurements.
struct CopySetup<'a> {
    programs: &'a MeasuredPrograms,
    dir: &'a Path,
    daemon: &'a MeasuredDaemon,
    ssh: &'a SshConnection,
}

pub(crate) fn run(programs: &MeasuredPrograms, amount: WorkAmount) -> anyhow::Result<BenchReport> {
    let dir = site::directory_in_memory()?;
    let agent = site::agent(programs, dir.path())?;
    let daemon = MeasuredDaemon::ready(programs, dir.path(), 1)?;
    let ssh = SshConnection::start(dir.path())?;
    let setup = CopySetup { programs, dir: dir.path(), daemon: &daemon, ssh: &ssh };
    let (megabytes, small) = if amount.is_quick { (32, 500) } else { (512, 5000) };
    let sources = [large_file(dir.path(), megabytes)?, tree(dir.path(), small)?];
    let mut growth = MemoryGrowth::begin(daemon.program.pid(), agent.pid())?;
    let mut times: [[CopyTimes; 2]; 2] = Default::default();
    for _ in 0..amount.rounds {
        for (source, times) in sources.iter().zip(&mut times) {
            for direction in [CopyDirection::ToGuest, CopyDirection::FromGuest] {
                setup.round(source, direction, &mut times[direction as usize])?;
            }
        }
        growth.measure()?;
    }
    let cases = [format!("{megabytes} MiB"), format!("{small} files of 1 KiB")];
    let mut rows = Vec::new();
    for (case, [to, from]) in cases.iter().zip(times) {
        rows.extend(to.rows(&format!("{case}, to the guest")));
        rows.extend(from.rows(&format!("{case}, from the guest")));
    }
    rows.extend(growth.rows());
    Ok(BenchReport { bench: "files", rows })
}

/// Creates a file of random bytes.
fn large_file(dir: &Path, megabytes: u64) -> anyhow::Result<PathBuf> {
    let path = dir.join("large");
    let mut random = File::open("/dev/urandom")?.take(megabytes << 20);
    std::io::copy(&mut random, &mut File::create(&path)?)?;
    Ok(path)
}

/// Creates a directory with `count` small files.
fn tree(dir: &Path, count: usize) -> anyhow::Result<PathBuf> {
    let path = dir.join("tree");
    for number in 0..count {
        let directory = path.join(format!("d{}", number / IN_A_DIRECTORY));
        fs::create_dir_all(&directory)?;
        File::create(directory.join(format!("f{number}")))?.write_all(&[b'x'; SMALL])?;
    }
    Ok(path)
}

/// Returns the number of files beneath `path`, or 1 for a file.
fn count(path: &Path) -> anyhow::Result<usize> {
    if !path.is_dir() {
        return Ok(usize::from(path.exists()));
    }
    fs::read_dir(path)?.map(|entry| count(&entry?.path())).sum()
}

impl CopySetup<'_> {
    /// Copies the source once with each program.
    fn round(
        &self,
        source: &Path,
        direction: CopyDirection,
        times: &mut CopyTimes,
    ) -> anyhow::Result<()> {
        let destination = self.dir.join("copy");
        let expected = count(source)?;
        for (program, times) in [
            (CopyProgram::Minionsctl, &mut times.minionsctl),
            (CopyProgram::Scp, &mut times.scp),
            (CopyProgram::Sftp, &mut times.sftp),
            (CopyProgram::Rsync, &mut times.rsync),
        ] {
            let mut command = self.command(program, source, direction, &destination)?;
            let took = timed(|| succeed(&mut command));
            times.push(milliseconds(took.with_context(|| format!("{command:?}"))?));
            let copied = count(&destination)?;
            ensure!(copied == expected, "{command:?} copied {copied} of {expected} files");
            if destination.is_dir() {
                fs::remove_dir_all(&destination)?;
            } else {
                fs::remove_file(&destination)?;
            }
        }
        Ok(())
    }

    fn command(
        &self,
        program: CopyProgram,
        source: &Path,
        direction: CopyDirection,
        destination: &Path,
    ) -> anyhow::Result<Command> {
        let host = if matches!(program, CopyProgram::Minionsctl) { VM } else { "bench" };
        let (mut from, mut to) = (source.display().to_string(), destination.display().to_string());
        let control = self.ssh.options().join(" ");
        let recursive = source.is_dir().then_some("-r");
        let mut command = match program {
            CopyProgram::Minionsctl => {
                let mut command = Command::new(&self.programs.minionsctl);
                command.arg("--host").arg(format!("unix://{}", self.daemon.socket.display()));
                command.arg("cp").args(recursive);
                command
            }
            CopyProgram::Scp => {
                let mut command = Command::new("scp");
                command.args(self.ssh.options()).arg("-q").args(recursive);
                command
            }
            CopyProgram::Sftp => return self.sftp(source, direction, destination),
            CopyProgram::Rsync => {
                // With the slash, the contents of a directory, as the others copy it to a new name.
                if source.is_dir() {
                    from.push('/');
                }
                let mut command = Command::new("rsync");
                command.args(["-r", "-e", &format!("ssh {control}")]);
                command
            }
        };
        match direction {
            CopyDirection::ToGuest => to = format!("{host}:{to}"),
            CopyDirection::FromGuest => from = format!("{host}:{from}"),
        }
        command.args([from, to]);
        Ok(command)
    }

    fn sftp(
        &self,
        source: &Path,
        direction: CopyDirection,
        destination: &Path,
    ) -> anyhow::Result<Command> {
        let (from, to) = (source.display(), destination.display());
        // sftp copies a directory only into one that exists.
        let batch = match direction {
            CopyDirection::ToGuest if source.is_dir() => {
                format!("mkdir {to}\nput -r {from}/. {to}\n")
            }
            CopyDirection::ToGuest => format!("put {from} {to}\n"),
            CopyDirection::FromGuest => format!("get -r {from} {to}\n"),
        };
        let file = self.dir.join("batch");
        fs::write(&file, batch)?;
        let mut command = Command::new("sftp");
        command.args(self.ssh.options()).arg("-q").arg("-b").arg(file).arg("bench");
        Ok(command)
    }
}

impl CopyTimes {
    fn rows(self, case: &str) -> Vec<ReportRow> {
        let Self { minionsctl, scp, sftp, rsync } = self;
        let row = |(peer, theirs)| ReportRow {
            case: case.to_owned(),
            unit: FigureUnit::Milliseconds,
            ours: minionsctl.clone(),
            peer: Some((peer, theirs)),
            aim: Some(FigureAim::RatioAtMost(0.5)),
        };
        [("scp", scp), ("sftp", sftp), ("rsync over ssh", rsync)].map(row).into()
    }
}
