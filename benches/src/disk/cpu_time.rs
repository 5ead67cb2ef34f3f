//! Processor time of a machine monitor beside its guest: of all threads but those that run vCPUs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

/// What each thread has used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    by_thread: BTreeMap<OsString, u64>,
}

impl CpuTime {
    /// Of the process until now.
    pub(super) fn of_process(id: u32) -> Self {
        let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
            return Self::default();
        };
        let of_thread = |thread: fs::DirEntry| {
            let read = |name| fs::read_to_string(thread.path().join(name)).ok();
            if runs_guest(&read("comm")?) {
                return None;
            }
            // Time on a processor comes first (Documentation/scheduler/sched-stats.rst).
            let used = read("schedstat")?.split(' ').next()?.parse().ok()?;
            Some((thread.file_name(), used))
        };
        Self {
            by_thread: threads.flatten().filter_map(of_thread).collect(),
        }
    }

    /// What was used after `before`, in microseconds; threads that have ended do not count.
    pub(super) fn microseconds_since(&self, before: &Self) -> f64 {
        let of_thread = |(thread, used): (&OsString, &u64)| {
            let earlier = before.by_thread.get(thread).copied().unwrap_or(0);
            used.saturating_sub(earlier)
        };
        let nanoseconds: u64 = self.by_thread.iter().map(of_thread).sum();
        nanoseconds as f64 / 1e3
    }
}

/// By the names that machine monitors give to the threads of vCPUs.
fn runs_guest(name: &str) -> bool {
    name.starts_with("vcpu") || name.starts_with("CPU ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_vcpus_are_known_by_name() {
        assert!(runs_guest("vcpu0\n") && runs_guest("CPU 0/KVM\n") && runs_guest("vcpu_0\n"));
        assert!(!runs_guest("disk0\n") && !runs_guest("IO io0\n"));
    }

    #[test]
    fn a_thread_that_ends_takes_nothing_from_the_others() {
        let times = |threads: &[(&str, u64)]| CpuTime {
            by_thread: threads
                .iter()
                .map(|(id, used)| (id.into(), *used))
                .collect(),
        };
        let before = times(&[("1", 5000), ("2", 90000)]);
        let after = times(&[("1", 6000), ("3", 2000)]);
        assert_eq!(after.microseconds_since(&before), 3.0);
    }
}
