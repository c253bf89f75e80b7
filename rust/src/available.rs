//! How much memory there is to be had.

/// Bytes a new process can have without driving others out, as Linux tells; the limit of its control group counts.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let machine = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    let number = |name: &str| std::fs::read_to_string(name).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max").or_else(|| number("/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    Some(group.map_or(machine, |group| group.min(machine)))
}
