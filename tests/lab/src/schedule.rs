//! Tests side by side, on as many processors as the host has.

use std::collections::VecDeque;
use std::sync::mpsc;
use std::thread;

use crate::error::Result;

/// Runs `test` on each of `names` and gives the names of those that failed. No more than `processors` are in
/// use at a time, of which `needs` says how many a test takes; one that takes more than there are runs alone.
///
/// # Errors
///
/// The first error of `test`, when the tests that ran beside it have ended.
pub fn schedule(
    names: &[String],
    processors: usize,
    needs: impl Fn(&str) -> usize,
    test: impl Fn(&str) -> Result<bool> + Sync,
) -> Result<Vec<&str>> {
    let takes = |name: &str| needs(name).min(processors);
    let mut waiting: Vec<&str> = names.iter().map(String::as_str).collect();
    // The widest first, so that none of them waits for the others to end.
    waiting.sort_by_key(|name| std::cmp::Reverse(takes(name)));
    let mut waiting = VecDeque::from(waiting);
    let mut free = processors;
    let mut failed = Vec::new();
    let mut error = None;
    let (ended, ends) = mpsc::channel();
    thread::scope(|scope| {
        loop {
            while let Some(&name) = waiting.front()
                && takes(name) <= free
            {
                waiting.pop_front();
                free -= takes(name);
                let (ended, test) = (ended.clone(), &test);
                scope.spawn(move || ended.send((name, test(name))));
            }
            if free == processors {
                break;
            }
            let Ok((name, result)) = ends.recv() else {
                break;
            };
            free += takes(name);
            match result {
                Ok(true) => {}
                Ok(false) => failed.push(name),
                Err(new) => {
                    waiting.clear();
                    error.get_or_insert(new);
                }
            }
        }
    });
    match error {
        None => Ok(failed),
        Some(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::schedule;
    use crate::error::LabError;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| number.to_string()).collect()
    }

    fn needs(name: &str) -> usize {
        if name == "3" { 2 } else { 1 }
    }

    #[test]
    fn processors_are_all_used_and_none_twice() {
        let (in_use, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ran = Mutex::new(Vec::new());
        let names = names(8);
        let failed = schedule(&names, 2, needs, |name| {
            let now = in_use.fetch_add(needs(name), Ordering::SeqCst) + needs(name);
            most.fetch_max(now, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            in_use.fetch_sub(needs(name), Ordering::SeqCst);
            ran.lock().unwrap().push(name.to_owned());
            Ok(name != "5")
        });
        assert_eq!(failed.unwrap(), ["5"]);
        assert_eq!(most.into_inner(), 2);
        let mut ran = ran.into_inner().unwrap();
        ran.sort();
        assert_eq!(ran, names);
    }

    #[test]
    fn a_wide_test_runs_on_a_narrow_host() {
        let names = names(4);
        let failed = schedule(&names, 1, needs, |_| Ok(true));
        assert_eq!(failed.unwrap().len(), 0);
    }

    #[test]
    fn an_error_ends_the_run() {
        let ran = AtomicUsize::new(0);
        let names = names(9);
        let result = schedule(&names, 1, needs, |_| {
            ran.fetch_add(1, Ordering::SeqCst);
            Err(LabError::Unusable("no lab".to_owned()))
        });
        assert!(result.is_err());
        assert_eq!(ran.into_inner(), 1);
    }
}
