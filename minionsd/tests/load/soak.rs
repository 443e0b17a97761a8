//! A short soak test; `cargo xtask soak` runs longer ones.

use soak::{SoakOptions, run};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_faulty_vms_cause_no_wrong_lost_or_repeated_answer() {
    let out = tempfile::tempdir().unwrap();
    let report = run(&SoakOptions {
        minionsd: env!("CARGO_BIN_EXE_minionsd").into(),
        seed: 1,
        lasts: Duration::from_secs(6),
        vms: 200,
        callers: 32,
        out: out.path().to_owned(),
    })
    .await
    .unwrap();
    println!("{:#}", report.summary);
    let found = (&report.violations, &report.tail);
    assert_eq!(report.violation_count, 0, "{found:#?}");
}
