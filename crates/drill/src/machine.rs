//! How much of this machine's processors went to something else than the lab: other programs, or
//! other virtual machines on the same hardware. What a starved system does says nothing about it.

use std::fs;

/// Processor time since the machine started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of all processors together, idle or not.
    total: u64,
    /// For programs, their system calls included, and for other virtual machines.
    busy: u64,
    /// For the lab: every process that this one sees, and their children that have ended.
    own: u64,
}

impl Usage {
    /// Reads the present figures, `None` where `/proc` does not show them.
    pub(crate) fn now() -> Option<Self> {
        let (total, busy) = parse_machine(&fs::read_to_string("/proc/stat").ok()?)?;
        let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let pid: u32 = name.to_str()?.parse().ok()?;
            // One that has just ended is in its parent's figures.
            parse_process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        });
        Some(Self { total, busy, own: processes.sum() })
    }

    /// Returns the share of the time since `before` that went elsewhere, in percent.
    pub(crate) fn foreign_since(self, before: Self) -> u64 {
        let total = self.total.saturating_sub(before.total).max(1);
        let busy = self.busy.saturating_sub(before.busy);
        busy.saturating_sub(self.own.saturating_sub(before.own)) * 100 / total
    }
}

/// Reads the first line of `/proc/stat` (proc(5)): user nice system idle iowait irq softirq steal.
fn parse_machine(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let first = ticks.get(..8)?;
    let [user, nice, system, _, _, _, _, steal] = first else { return None };
    Some((first.iter().sum(), user + nice + system + steal))
}

/// Reads utime, stime, cutime and cstime out of `/proc/PID/stat`.
fn parse_process(text: &str) -> Option<u64> {
    // The name in brackets may hold anything, brackets too.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The state is field 3 of proc(5), and the first here.
    fields.get(11..15)?.iter().map(|word| word.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_as_the_kernel_writes_them() {
        let machine = "cpu  100 10 50 800 5 7 20 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_machine(machine), Some((1000, 168)));
        let process = "42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 50 20 7 3 20 0 1 0 99 1 1";
        assert_eq!(parse_process(process), Some(80));
        assert_eq!(parse_process("42 (a"), None);
    }

    #[test]
    fn what_the_lab_uses_is_not_foreign() {
        let before = Usage { total: 1000, busy: 500, own: 300 };
        let check = |busy: u64, own: u64, expected: u64| {
            let after = Usage { total: 1200, busy: 500 + busy, own: 300 + own };
            assert_eq!(after.foreign_since(before), expected);
        };
        check(160, 160, 0);
        check(160, 60, 50);
        // A process that ended unseen took its figures along.
        check(10, 20, 0);
    }

    #[test]
    fn this_machine_shows_its_figures() {
        let usage = Usage::now().unwrap();
        assert!(usage.total > 0 && usage.busy <= usage.total);
    }
}
