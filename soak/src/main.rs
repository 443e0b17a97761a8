//! Command line of the soak test (library `soak`). `cargo xtask soak` builds and runs this program.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the program prints its report")]

use soak::{SoakError, SoakOptions, isolation, run};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "usage: soak run|isolation MINIONSD OUT SEED SECONDS VMS";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((mode, options)) = parse(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) if mode == "run" => runtime.block_on(soak(&options)),
        Ok(runtime) => runtime.block_on(measure(&options)),
        Err(source) => Err(SoakError::Io { what: "cannot start the async runtime".into(), source }),
    };
    done.unwrap_or_else(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        eprintln!("soak: {error}: {}", source.unwrap_or_default());
        ExitCode::FAILURE
    })
}

fn parse(words: &[String]) -> Option<(&str, SoakOptions)> {
    let [mode, minionsd, out, seed, seconds, vms] = words else { return None };
    let options = SoakOptions {
        minionsd: PathBuf::from(minionsd),
        out: PathBuf::from(out),
        seed: seed.parse().ok()?,
        lasts: Duration::from_secs(seconds.parse().ok()?),
        vms: vms.parse().ok()?,
        callers: 64,
    };
    matches!(mode.as_str(), "run" | "isolation").then_some((mode, options))
}

async fn soak(options: &SoakOptions) -> Result<ExitCode, SoakError> {
    println!("seed {}", options.seed);
    let report = run(options).await?;
    println!("{:#}", report.summary);
    if report.violation_count == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} violations with seed {}; the first ones:", report.violation_count, options.seed);
    report.violations.iter().for_each(|violation| println!("  {violation}"));
    println!("the last events:");
    report.tail.iter().for_each(|event| println!("  {event}"));
    Ok(ExitCode::FAILURE)
}

async fn measure(options: &SoakOptions) -> Result<ExitCode, SoakError> {
    let measured = isolation(options).await?;
    println!(
        "latency of health checks of healthy VMs in µs: while all VMs are healthy, while a tenth of all VMs hangs, \
         ratio"
    );
    for percent in [50, 90, 99] {
        let (healthy, hanging) = measured.percentile(percent);
        let ratio = f64::from(u32::try_from(hanging).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(healthy.max(1)).unwrap_or(u32::MAX));
        println!("p{percent} {healthy} {hanging} {ratio:.2}");
    }
    println!(
        "measured health checks: {} while all VMs were healthy, {} while a tenth hung",
        measured.alone.len(),
        measured.beside.len()
    );
    Ok(ExitCode::SUCCESS)
}
