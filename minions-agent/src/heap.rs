//! Settings of the C library's allocator, for a small process in a guest with little memory.
#![expect(unsafe_code, reason = "mallopt(3) has no safe wrapper")]

use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int};

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
