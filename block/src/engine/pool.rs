//! A few threads that carry requests out, for hosts without io_uring, and for what io_uring does not take.
//!
//! A job moves to the threads and comes back when it has been carried out, with the memory of its buffer
//! list. An event says that jobs came back, while somebody waits for it. The threads end with the pool, after the jobs that they have.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use vmm_sys_util::eventfd::EventFd;

use crate::IoError;
use crate::disk::Image;
use crate::executor::Executor;
use crate::request::Job;

/// Enough to keep a disk busy while others wait, few enough to be started by a machine's first request.
const THREADS: usize = 4;

/// The threads.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
    /// Jobs that have come back, to be seen without the lock.
    done_count: AtomicUsize,
    /// Whether those signal the event.
    signals: AtomicBool,
    event: EventFd,
}

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    done: VecDeque<(Job, Result<(), IoError>)>,
    ends: bool,
}

impl Pool {
    /// Starts the threads. `event` is signalled when a job has come back and none lay there before;
    /// `depth` jobs are taken without an allocation.
    pub(super) fn new(image: &Arc<Image>, event: EventFd, depth: usize) -> io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    jobs: VecDeque::with_capacity(depth),
                    done: VecDeque::with_capacity(depth),
                    ends: false,
                }),
                work: Condvar::new(),
                done: Condvar::new(),
                done_count: AtomicUsize::new(0),
                signals: AtomicBool::new(true),
                event,
            }),
            threads: Vec::with_capacity(THREADS),
        };
        for _ in 0..THREADS {
            let shared = Arc::clone(&pool.shared);
            let executor = Executor::new(Arc::clone(image));
            let thread = thread::Builder::new()
                .name("disk-io".to_owned())
                .spawn(move || serve(&shared, executor))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Hands a job over.
    pub(super) fn push(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }

    /// The next job that has been carried out.
    pub(super) fn pop(&self) -> Option<(Job, Result<(), IoError>)> {
        if self.shared.done_count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        let job = self.shared.lock().done.pop_front()?;
        self.shared.done_count.fetch_sub(1, Ordering::SeqCst);
        Some(job)
    }

    /// Whether jobs that come back from now on signal the event. Whoever asks for that looks for those that
    /// have come back already afterwards.
    pub(super) fn let_signal(&self, signals: bool) {
        if self.shared.signals.load(Ordering::Relaxed) != signals {
            self.shared.signals.store(signals, Ordering::SeqCst);
        }
    }

    /// Waits until a job has come back.
    pub(super) fn wait(&self) {
        let state = self.shared.lock();
        let _state = self
            .shared
            .done
            .wait_while(state, |state| state.done.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().ends = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing more to do either.
            let _ended = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut state = self
            .work
            .wait_while(self.lock(), |state| state.jobs.is_empty() && !state.ends)
            .unwrap_or_else(PoisonError::into_inner);
        state.jobs.pop_front()
    }
}

fn serve(shared: &Shared, mut executor: Executor) {
    while let Some(mut job) = shared.next() {
        let result = executor.run(&mut job);
        let mut state = shared.lock();
        let is_first = state.done.is_empty();
        state.done.push_back((job, result));
        shared.done_count.fetch_add(1, Ordering::SeqCst);
        drop(state);
        shared.done.notify_one();
        // Counted before: whoever asks for signals and then counts misses none.
        if is_first && shared.signals.load(Ordering::SeqCst) {
            // A counter that is full is an event that is pending.
            let _already_pending = shared.event.write(1);
        }
    }
}
