//! The benchmarks, and the loop that runs the selected ones.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the only module that prints")]

mod agent;
mod cli;
mod declared;
mod exec;
mod files;
mod growth;
mod http;
mod scale;
mod stream;
mod vm;

use std::{fs, num::NonZero, path::PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;
use testkit::rig::Layout;

use crate::{
    figures::report::BenchReport,
    machine,
    programs::{MeasuredPrograms, WorkAmount},
};

/// Benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BenchName {
    Http,
    Exec,
    Stream,
    Scale,
    Agent,
    Vm,
    Cli,
    Files,
    Declared,
}

/// Options of a run. `cargo xtask bench --help` describes those that it passes on.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Directory with release builds of minionsd and minionsctl
    #[arg(long, value_name = "DIR")]
    programs: PathBuf,
    /// Directory for JSON and plots
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of rounds of each benchmark
    #[arg(long)]
    rounds: NonZero<u32>,
    /// Do less work in each round
    #[arg(long)]
    quick: bool,
    /// Benchmarks to run [default: all]
    #[arg(value_enum)]
    benches: Vec<BenchName>,
}

/// Runs the selected benchmarks one after the other, prints their tables, and writes their JSON.
///
/// # Errors
///
/// A program cannot be started or does not answer as expected. The remaining benchmarks are not run.
pub(crate) fn run(options: &RunOptions) -> anyhow::Result<()> {
    machine::allow_many_descriptors()?;
    let programs = MeasuredPrograms {
        minionsd: options.programs.join("minionsd"),
        minionsctl: options.programs.join("minionsctl"),
        agent: Layout::from_env().agent(),
        bench: std::env::current_exe().context("cannot find this program")?,
    };
    let amount = WorkAmount { rounds: options.rounds.get(), is_quick: options.quick };
    let out = &options.out;
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    println!("{}", machine::described());
    let selected =
        if options.benches.is_empty() { BenchName::value_variants() } else { &options.benches };
    for bench in selected {
        let report = match bench {
            BenchName::Http => http::run(&programs, amount)?,
            BenchName::Exec => exec::run(&programs, amount)?,
            BenchName::Stream => stream::run(&programs, amount)?,
            BenchName::Scale => scale::run(&programs, amount, out)?,
            BenchName::Agent => agent::run(&programs, amount)?,
            BenchName::Vm => vm::run(&programs, amount)?,
            BenchName::Cli => cli::run(&programs, amount)?,
            BenchName::Files => files::run(&programs, amount)?,
            BenchName::Declared => declared::run(&programs, amount)?,
        };
        println!("\n{}", report.to_table());
        write(options, &report)?;
    }
    println!("JSON and plots are in {}", out.display());
    Ok(())
}

fn write(options: &RunOptions, report: &BenchReport) -> anyhow::Result<()> {
    let document = json!({
        "machine": machine::described(),
        "rounds": options.rounds,
        "quick": options.quick,
        "report": report.to_json(),
    });
    let path = options.out.join(format!("{}.json", report.bench));
    fs::write(&path, format!("{document:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints an error with its causes.
pub(crate) fn print_error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
