//! A chip's state together with the thread that moves it on when its time comes.
//!
//! One mutex holds the state; the thread waits on a condition variable with it, so a vCPU thread that
//! programs the chip and the thread that carries the programme out can never disagree. The thread is
//! started when the state first has a deadline, sleeps without a timeout while it has none, and is
//! stopped and joined when the [`Timed`] is dropped.

use std::fmt::{self, Debug};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::Clock;

/// Room for a thread that calls one interrupt line and waits.
const STACK_BYTES: usize = 128 * 1024;

/// State that changes with time alone.
pub(crate) trait TimedState: Debug + Send + 'static {
    /// Brings the state to the moment `now_ns` of [`Clock::monotonic_ns`]; drives interrupt lines.
    /// Called under the state's lock, by a vCPU thread or the chip's own.
    fn advance(&mut self, now_ns: u64);

    /// When [`advance`](Self::advance) has to be called next. A state keeps its deadlines as far apart as
    /// its host should be woken: nothing else limits the thread.
    fn next_deadline_ns(&self) -> Option<u64>;
}

/// The owner of a [`TimedState`] and of its thread.
pub(crate) struct Timed<S: TimedState> {
    shared: Arc<Shared<S>>,
    name: &'static str,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<S> {
    clock: Arc<dyn Clock>,
    inner: Mutex<Inner<S>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner<S> {
    state: S,
    is_stopped: bool,
    has_thread: bool,
}

impl<S: TimedState> Timed<S> {
    /// `name` names the thread, if there will be one.
    pub(crate) fn new(name: &'static str, clock: Arc<dyn Clock>, state: S) -> Self {
        Self {
            shared: Arc::new(Shared {
                clock,
                inner: Mutex::new(Inner {
                    state,
                    is_stopped: false,
                    has_thread: false,
                }),
                changed: Condvar::new(),
            }),
            name,
            thread: Mutex::new(None),
        }
    }

    /// Lets `access` work on the state, which stands at the time that it is given.
    pub(crate) fn with<R>(&self, access: impl FnOnce(&mut S, u64) -> R) -> R {
        let mut inner = self.shared.lock();
        let now_ns = self.shared.clock.monotonic_ns();
        inner.state.advance(now_ns);
        let before = inner.state.next_deadline_ns();
        let result = access(&mut inner.state, now_ns);
        let after = inner.state.next_deadline_ns();
        if after.is_some() && !inner.has_thread {
            // One attempt: a host without room for a thread is told of once, not at each access.
            inner.has_thread = true;
            self.start();
        } else if after != before {
            self.shared.changed.notify_one();
        }
        result
    }

    #[cfg(test)]
    pub(crate) fn thread_id(&self) -> Option<thread::ThreadId> {
        lock(&self.thread)
            .as_ref()
            .map(|thread| thread.thread().id())
    }

    /// The thread's first step is to take the lock, which the caller still holds.
    fn start(&self) {
        // A fuzzer's clock stands still between accesses, each of which brings the state to its time.
        if cfg!(fuzzing) {
            return;
        }
        let shared = self.shared.clone();
        let thread = thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || shared.run());
        match thread {
            Ok(thread) => *lock(&self.thread) = Some(thread),
            Err(error) => tracing::error!(
                device = self.name,
                %error,
                "no thread for the timer: the guest gets no interrupts from it"
            ),
        }
    }
}

impl<S: TimedState> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        lock(&self.inner)
    }

    fn run(&self) {
        let mut inner = self.lock();
        while !inner.is_stopped {
            let now_ns = self.clock.monotonic_ns();
            inner.state.advance(now_ns);
            inner = match inner.state.next_deadline_ns() {
                None => self
                    .changed
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline_ns) => {
                    let wait = Duration::from_nanos(deadline_ns.saturating_sub(now_ns));
                    self.changed
                        .wait_timeout(inner, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

impl<S: TimedState> Drop for Timed<S> {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!(device = self.name, "the timer's thread panicked");
        }
    }
}

impl<S: TimedState> Debug for Timed<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Timed")
            .field("name", &self.name)
            .field("inner", &self.shared.inner)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
