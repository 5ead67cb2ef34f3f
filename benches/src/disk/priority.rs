//! A high priority, for as long as something is measured that is not what else the host does.

use std::fs;

/// Linux schedules sessions against each other first, where it groups them by itself (sched(7), "The autogroup
/// feature").
const AUTOGROUP: &str = "/proc/self/autogroup";
/// Not the highest: threads of the kernel that end requests must get a processor as well.
const HIGH: i32 = -10;

/// This process and its session have it until this is dropped.
#[derive(Debug)]
pub(super) struct Priority;

impl Priority {
    /// Takes it; says so where the host does not allow it.
    pub(super) fn raise() -> Self {
        if !set(HIGH) {
            println!("\nthe host allows no higher priority: what else it does is measured too");
        }
        Self
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        set(0);
    }
}

/// Whether the host let this be the priority.
fn set(nice: i32) -> bool {
    // SAFETY: the call changes the priority of this process alone.
    let process = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } == 0;
    let groups = fs::exists(AUTOGROUP).unwrap_or(false);
    process && (!groups || fs::write(AUTOGROUP, nice.to_string()).is_ok())
}
