//! Work on numbered pieces by all CPUs that the process may use.
//!
//! The calling thread takes part; others are started only for more than one piece, and when one cannot be
//! started the rest do its work. They end before the call returns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// No more threads than this: each has buffers of its own, and memory bandwidth is used up long before.
const THREADS_MAXIMUM: usize = 8;

/// Calls what `worker` makes, one of it for each thread, with each number below `count` once, in ascending
/// order as threads come free. The first error stops all and is returned.
pub(crate) fn for_each<W, E>(count: usize, worker: impl Fn() -> W + Sync) -> Result<(), E>
where
    W: FnMut(usize) -> Result<(), E>,
    E: Send,
{
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        let mut run = worker();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Err(error) = run(index) {
                next.store(count, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
                break;
            }
        }
    };
    let threads = if count > 1 {
        thread::available_parallelism()
            .map_or(1, usize::from)
            .min(count)
            .min(THREADS_MAXIMUM)
    } else {
        1
    };
    if threads > 1 {
        thread::scope(|scope| {
            for _ in 1..threads {
                let builder = thread::Builder::new().name("load".into());
                if builder.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    } else {
        work();
    }
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::for_each;

    #[test]
    fn each_piece_is_done_once() {
        for count in [0usize, 1, 2, 63] {
            let seen = AtomicU64::new(0);
            let worker = || {
                |index: usize| {
                    let before = seen.fetch_add(1 << index, Ordering::Relaxed);
                    if before & 1 << index == 0 {
                        Ok(())
                    } else {
                        Err(index)
                    }
                }
            };
            assert_eq!(for_each(count, worker), Ok(()));
            assert_eq!(seen.load(Ordering::Relaxed), (1u64 << count) - 1);
        }
    }

    #[test]
    fn an_error_ends_the_work() {
        let done = AtomicU64::new(0);
        let result = for_each(1_000_000, || {
            |index: usize| {
                done.fetch_add(1, Ordering::Relaxed);
                if index == 3 { Err("three") } else { Ok(()) }
            }
        });
        assert_eq!(result, Err("three"));
        assert!(done.load(Ordering::Relaxed) < 1_000_000);
    }
}
