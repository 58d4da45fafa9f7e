//! How much memory a process may still take: what the machine has, and what its control groups allow.

use std::path::Path;

/// Memory that this process may still take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// In bytes.
    pub free: u64,
    /// What limits it, in words.
    pub limit: String,
}

impl Memory {
    /// What is left now, by the narrowest of the machine and the control groups.
    pub fn left() -> Self {
        let machine = Self { free: available().unwrap_or(u64::MAX), limit: "this machine".into() };
        std::iter::once(machine).chain(control_groups()).min_by_key(|memory| memory.free).expect("one at least")
    }
}

fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(kib.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

/// The limits of the control groups that this process is in, the inner and the outer ones.
fn control_groups() -> Vec<Memory> {
    let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else { return Vec::new() };
    let unified = own.lines().find_map(|line| line.strip_prefix("0::"));
    let memory = own.lines().find_map(|line| line.split_once(":memory:").map(|(_, path)| path));
    let number = |path: &Path, file: &str| std::fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok();
    let cached = |path: &Path, what: &str| -> u64 {
        let stat = std::fs::read_to_string(path.join("memory.stat")).unwrap_or_default();
        stat.lines().find_map(|line| line.strip_prefix(what)?.trim().parse().ok()).unwrap_or(0)
    };
    let hierarchies = [
        (unified, "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "),
        (memory, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
    ];
    let mut limits = Vec::new();
    for (group, root, most, used, inactive) in hierarchies {
        let Some(group) = group else { continue };
        let folder = Path::new(root).join(group.trim_start_matches('/'));
        for level in folder.ancestors().take_while(|level| level.starts_with(root)) {
            if let (Some(most), Some(used)) = (number(level, most), number(level, used)) {
                // What is cached of files makes room when room is needed.
                let free = most.saturating_sub(used.saturating_sub(cached(level, inactive)));
                limits.push(Memory { free, limit: format!("the memory limit of {}", level.display()) });
            }
        }
    }
    limits
}
