//! How the process's allocator serves librdkafka's threads.

/// Malloc arenas of the process. librdkafka frees on one thread what it allocated on another (a record is read by a
/// broker's thread and dropped by a lane), so glibc's default of eight arenas a core keeps a high-water mark in each.
const ARENAS: libc::c_int = 2;
/// Larger blocks (a fetch response is one) are mapped by themselves and given back at once. Naming a threshold also stops
/// glibc from raising it to the largest block freed so far, after which those blocks would fragment the arenas.
const MMAP_THRESHOLD: libc::c_int = 256 * 1024;

/// Bounds what the allocator keeps. Call it first in `main`: arenas that exist stay.
///
/// Only with glibc; elsewhere it does nothing.
pub fn bound_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: no preconditions; parameters and values are ones that mallopt(3) names.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}
