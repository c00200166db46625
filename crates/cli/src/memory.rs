//! Whether something fits into this machine's memory, asked before libtorch gives up for want of it.

use anyhow::{Result, bail};
use tch::Device;

/// Refuses what is larger than the whole memory; on another device than the CPU, or where the system does not tell, nothing is.
pub fn check(bytes: u64, device: Device) -> Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes = ["MemTotal:", "SwapTotal:"].iter().filter_map(|key| field(&text, key)).sum::<u64>();
    if device == Device::Cpu && kibibytes > 0 && bytes / 1024 > kibibytes {
        bail!(
            "it needs {} GiB of memory at least, this machine has {} GiB: make it smaller (model.d, model.depth, model.image, the batch)",
            bytes >> 30,
            kibibytes >> 20
        );
    }
    Ok(())
}

/// The process's resident memory in bytes; its recorded peak begins anew from there.
pub fn resident_and_reset_peak() -> Result<u64> {
    std::fs::write("/proc/self/clear_refs", "5")?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    Ok(field(&status, "VmRSS:").unwrap_or(0) * 1024)
}

fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().split(' ').next()?.parse().ok()
}
