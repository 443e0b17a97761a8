//! The C library's allocator, for commands that run for long.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper"))]

/// Returns free memory to the kernel. By itself, the library returns only what is free at the end of the heap, and many
/// connections at once leave free blocks all over it.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may run at the same time as other calls of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}
