//! Cost of the pool: checking out a connection, alone and with a health check over it.
//!
//! `cargo bench -p minionsd --features bench`
#![expect(clippy::unwrap_used, reason = "a benchmark that fails has nothing to report")]

use divan::Bencher;
use minionsd::benching::BenchedPool;
use std::sync::Arc;
use testkit::fake_vmm::{Behaviour, Dialect, FakeVmm, Guest};
use tokio::runtime::Runtime;

fn main() {
    divan::main();
}

/// A fake VM and its pool, with the runtime for both.
struct BenchSite {
    runtime: Runtime,
    pool: Arc<BenchedPool>,
    _vm: FakeVmm,
    _dir: tempfile::TempDir,
}

impl BenchSite {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let guest = Guest::new("vm-1", Dialect::Objects, 1, Arc::default());
        let vm = {
            let _entered = runtime.enter();
            FakeVmm::start(dir.path(), "vm-1", Behaviour::Guest(guest)).unwrap()
        };
        let pool = Arc::new(BenchedPool::new(vm.path(), 8).unwrap());
        runtime.block_on(pool.check_out()).unwrap();
        Self { runtime, pool, _vm: vm, _dir: dir }
    }
}

/// Checks out a connection (permit, youngest idle connection, check for unread bytes) and returns it.
#[divan::bench]
fn check_out_and_give_back(bencher: Bencher<'_, '_>) {
    let site = BenchSite::new();
    bencher.bench_local(|| site.runtime.block_on(site.pool.check_out()).unwrap());
}

/// Checks out a connection, makes one exchange, which includes the guest's work, and returns it.
#[divan::bench]
fn one_health_check(bencher: Bencher<'_, '_>) {
    let site = BenchSite::new();
    bencher.bench_local(|| site.runtime.block_on(site.pool.health()).unwrap());
}

/// Makes concurrent health checks, which wait for each other if there are more callers than connections.
#[divan::bench(args = [1, 8, 32])]
fn health_checks_at_once(bencher: Bencher<'_, '_>, callers: usize) {
    let site = BenchSite::new();
    let all = || async {
        let asked = (0..callers).map(|_| site.pool.health());
        futures_util::future::try_join_all(asked).await
    };
    bencher.counter(callers).bench_local(|| site.runtime.block_on(all()).unwrap());
}
