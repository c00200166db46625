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

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_env = "gnu")]
    fn glibc_agrees() {
        assert!(super::keep_freed_blocks());
    }
}
