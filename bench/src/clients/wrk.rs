//! `wrk`, pinned to the last core, and its output.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::Context;

use crate::programs::foreground::output_of;

/// Figures of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LoadFigures {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) requests: f64,
}

/// Requests `path` as fast as possible over `connections` connections.
pub(crate) fn run(
    address: SocketAddr,
    path: &str,
    connections: u32,
    duration: Duration,
) -> anyhow::Result<LoadFigures> {
    let core = std::thread::available_parallelism().map_or(0, |cores| cores.get() - 1);
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", &core.to_string(), "wrk", "--latency", "--timeout", "30s", "-t1"])
        .args([format!("-c{connections}"), format!("-d{}s", duration.as_secs().max(1))])
        .arg(format!("http://{address}{path}"));
    let output = output_of(&mut wrk)?;
    parse(&output).with_context(|| format!("wrk failed:\n{output}"))
}

/// Parses the output; returns `None` if any request failed.
fn parse(output: &str) -> Option<LoadFigures> {
    if output.contains("Non-2xx") || output.contains("Socket errors") {
        return None;
    }
    let after = |name: &str| {
        let line = output.lines().map(str::trim).find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()
    };
    let total = output.lines().find(|line| line.contains(" requests in "))?;
    Some(LoadFigures {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p50_us: microseconds(after("50%")?)?,
        requests: total.split_whitespace().next()?.parse().ok()?,
    })
}

/// Parses `83.00us`, `1.20ms` or `1.00s`.
fn microseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.strip_suffix('s')?, 1e6)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Running 2s test @ http://127.0.0.1:1/
  1 threads and 1 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    74.99us   21.00us   1.31ms   93.85%
    Req/Sec    13.27k   641.05    14.35k    71.43%
  Latency Distribution
     50%   71.00us
     75%   79.00us
  27735 requests in 2.10s, 4.55MB read
Requests/sec:  13208.50
Transfer/sec:      2.17MB
";

    #[test]
    fn the_figures_of_a_run_are_parsed() {
        let load = LoadFigures { requests_per_second: 13208.5, p50_us: 71.0, requests: 27735.0 };
        assert_eq!(parse(OUTPUT), Some(load));
        assert_eq!(microseconds("1.20ms"), Some(1200.0));
        assert_eq!(microseconds("2.00s"), Some(2e6));
        assert_eq!(microseconds("2.00"), None);
    }

    #[test]
    fn a_run_with_failed_requests_is_rejected() {
        assert_eq!(parse(&format!("{OUTPUT}  Non-2xx or 3xx responses: 1\n")), None);
        assert_eq!(parse(&format!("{OUTPUT}  Socket errors: connect 0, read 1\n")), None);
    }
}
