//! How much memory this process may still take.

use std::path::Path;

/// Bytes that are free on this machine and within the limits of this process's control groups; `None` where
/// neither can be read.
#[must_use]
pub fn available_memory_bytes() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_available(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| left_in_groups(Path::new("/sys/fs/cgroup"), &groups));
    machine.into_iter().chain(group).min()
}

/// Address space that this process may take, in bytes (`ulimit -v`); `None` without a limit.
#[must_use]
pub fn address_space_limit_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::As).current
}

fn mem_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least that any of the process's groups, or the groups around them, leaves.
fn left_in_groups(root: &Path, groups: &str) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        // `0::/path` in version 2; `4:memory:/path` in version 1.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (base, limit, used) = if controllers.is_empty() {
            (root.to_owned(), "memory.max", "memory.current")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        } else {
            continue;
        };
        // In a container, the path may be that of the host, and the root of the tree is the own group.
        let mut folder = base.join(path.trim_start_matches('/'));
        loop {
            least = least.into_iter().chain(left(&folder, limit, used)).min();
            if folder == base || !folder.pop() {
                break;
            }
        }
    }
    least
}

fn left(folder: &Path, limit: &str, used: &str) -> Option<u64> {
    let number = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    // The kernel gives up cached file contents when memory runs short.
    let stat = std::fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        value.unwrap_or(0)
    };
    let cached = cached("inactive_file ") + cached("active_file ");
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_what_is_free() {
        assert_eq!(mem_available("MemTotal: 100 kB\nMemAvailable:   42 kB\n"), Some(43_008));
        assert_eq!(mem_available("MemTotal: 100 kB\n"), None);
        assert!(available_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_tightest_group_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, limit: &str, used: &str, stat: &str| {
            let folder = root.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            for (name, text) in [("memory.max", limit), ("memory.current", used), ("memory.stat", stat)] {
                std::fs::write(folder.join(name), text).unwrap();
            }
        };
        group("a", "1000\n", "700\n", "anon 5\ninactive_file 100\nactive_file 50\n");
        group("a/b", "max\n", "10\n", "");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), Some(450));
        group("a/b", "400\n", "10\n", "");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), Some(390));
        assert_eq!(left_in_groups(root.path(), "0::/elsewhere\n"), None);
        let old = root.path().join("memory/x");
        std::fs::create_dir_all(&old).unwrap();
        std::fs::write(old.join("memory.limit_in_bytes"), "300").unwrap();
        std::fs::write(old.join("memory.usage_in_bytes"), "100").unwrap();
        assert_eq!(left_in_groups(root.path(), "5:cpu,memory:/x\n3:pids:/x\n"), Some(200));
    }
}
