//! Settings of the C library's allocator, for a small process in a guest with little memory.
#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrappers")]

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Size from which a block is a mapping of its own, in bytes. The library's initial value; setting it keeps the library
/// from raising it, up to 32 MiB, after a large block was freed.
const MAPPED: c_int = 128 * 1024;

/// Free memory at the end of the heap from which the heap shrinks, in bytes: more than the buffers of two execs, so that
/// the heap does not shrink and grow with each.
const SPARE: c_int = 512 * 1024;

/// Makes all threads share one heap, and freed memory return to the kernel. By default, each thread that may block would
/// have a heap of its own. The agent's other threads allocate little, so they do not wait for each other.
///
/// Must run while the process has only one thread.
pub fn keep_small() {
    for (option, value) in [(M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, MAPPED), (M_TRIM_THRESHOLD, SPARE)]
    {
        // SAFETY: sets a number of the allocator, and takes no pointer. No other thread runs. A failure has no effect.
        unsafe { libc::mallopt(option, value) };
    }
}

/// Number of connections after whose end freed memory is returned to the kernel.
const TRIM_AFTER: u32 = 32;

/// Time between the end of the last of these connections and the return of the memory: the others of a burst end meanwhile.
const TRIM_DELAY: Duration = Duration::from_secs(1);

/// Counts a connection that has ended. After [`TRIM_AFTER`] of them, free memory is returned to the kernel.
///
/// Many connections at once leave free blocks all over the heap: after 20 times 256 forwards, it had 15 MB of them. By itself,
/// the library returns only those at the end of the heap. Looking for the others takes about a millisecond.
pub(crate) fn connection_ended() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    if ENDED.fetch_add(1, Ordering::Relaxed) + 1 == TRIM_AFTER {
        crate::task::spawn(async {
            sleep(TRIM_DELAY).await;
            ENDED.store(0, Ordering::Relaxed);
            // SAFETY: takes no pointer, and may run at the same time as other calls of the allocator.
            unsafe { libc::malloc_trim(0) };
        });
    }
}
