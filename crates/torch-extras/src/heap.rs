//! The C library's heap, which libtorch's CPU allocator sits on.

/// Has the heap keep large blocks that are freed instead of handing them back to the system: a training step frees and asks for the same
/// tensors again and again, and each page that comes back from the system must be filled with zeros first. Call it once, before the first tensor. The peak
/// of memory stays what it was; between steps the process keeps its peak. Returns whether the C library has agreed (glibc does).
pub fn keep_freed_blocks() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes plain numbers and changes parameters of the allocator alone.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 25) == 1 && libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX) == 1
        }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Asks the system for large pages for the heap's next gigabytes, where it gives them to who asks: a tensor of some megabytes lies in thousands of usual pages, and
/// finding their addresses takes time. Memory is taken when it is written to, as ever, unless the system counts what is asked for. Call it once, from the main thread, before
/// the first tensor and behind [`keep_freed_blocks`]. Returns whether the system has agreed.
pub fn ask_for_large_pages() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // What a block takes that the heap has to grow for, and how much it grows beyond it: what is free at its end stays below the size that is handed back.
        const BLOCK: usize = 1 << 24;
        const AHEAD: i32 = i32::MAX - (1 << 26);
        const USUAL: i32 = 1 << 17;
        const PAGE: usize = 1 << 21;
        // SAFETY: mallopt and sbrk(0) take and give plain numbers; the block is given back as it came; and the advice changes nothing about what the pages hold.
        unsafe {
            libc::mallopt(libc::M_TOP_PAD, AHEAD);
            let block = libc::malloc(BLOCK);
            libc::mallopt(libc::M_TOP_PAD, USUAL);
            libc::free(block);
            let (start, end) = ((block as usize).next_multiple_of(PAGE), libc::sbrk(0) as usize);
            // A block that lies elsewhere says that the heap could not grow.
            !block.is_null()
                && start < end
                && end - start < 2 * AHEAD as usize
                && libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) == 0
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_env = "gnu")]
    fn glibc_agrees() {
        assert!(super::keep_freed_blocks());
    }

    /// Whatever the system answers (here on a thread that may have a heap of its own), the heap serves as before.
    #[test]
    fn the_heap_serves_as_before() {
        super::keep_freed_blocks();
        super::ask_for_large_pages();
        let blocks: Vec<Vec<u8>> = (0..40).map(|i| vec![i; 1 << 21]).collect();
        assert!(blocks.iter().enumerate().all(|(i, block)| block.iter().all(|&byte| usize::from(byte) == i)));
    }
}
