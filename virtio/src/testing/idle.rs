//! Whether a device's thread sleeps.

use std::time::Duration;

/// Nanoseconds that the thread of this name has run (`schedstat` of proc(5)).
fn run_time_ns(thread_name: &str) -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(name) = std::fs::read_to_string(task.path().join("comm")) else {
            continue;
        };
        if name.trim() == thread_name {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
            return text.split_whitespace().next().unwrap().parse().unwrap();
        }
    }
    panic!("no thread {thread_name}");
}

/// The thread, whose name no other test has, sleeps rather than asks again and again.
pub fn assert_idle(thread_name: &str) {
    // A new thread gives itself its name, and has its first turns.
    std::thread::sleep(Duration::from_millis(20));
    let before = run_time_ns(thread_name);
    std::thread::sleep(Duration::from_millis(200));
    let spent = run_time_ns(thread_name) - before;
    assert!(
        spent < 20_000_000,
        "{thread_name} ran for {spent} of 200000000 ns"
    );
}
