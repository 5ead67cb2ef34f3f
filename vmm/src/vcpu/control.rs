//! What the machine says to a vCPU thread: stand, run, end.
//!
//! ```text
//!   created (stands) ── run ──► running ── stand, guest's end ──► stands ── run ──► …
//!          └──────────────────────── end ────────────────────────────► ended
//! ```
//!
//! A wish is written under the lock, then the thread is made to look: by the condition variable when it
//! stands, by `attention` and a kick when it runs. The thread looks at `attention` after it has cleared
//! `immediate_exit` and before it enters the guest, so that no wish is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::kick::Kick;

/// What is wanted of a vCPU thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stand,
    Run,
    End,
}

#[derive(Debug)]
struct State {
    wish: Wish,
    stands: bool,
}

/// Shared by a vCPU's thread and those who steer it.
#[derive(Debug)]
pub struct VcpuControl {
    state: Mutex<State>,
    changed: Condvar,
    /// Set when the thread has to look at the wish before it enters the guest again.
    attention: AtomicBool,
    kick: Kick,
}

impl Default for VcpuControl {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                wish: Wish::Stand,
                stands: true,
            }),
            changed: Condvar::new(),
            attention: AtomicBool::new(false),
            kick: Kick::default(),
        }
    }
}

impl VcpuControl {
    /// Lets the vCPU run.
    pub fn run(&self) {
        self.wish(Wish::Run);
    }

    /// Wants the vCPU to stand at an instruction boundary; returns before it does.
    pub fn request_stand(&self) {
        self.wish(Wish::Stand);
    }

    /// Waits until the vCPU stands or its thread has ended.
    pub fn wait_until_it_stands(&self) {
        let mut state = self.lock();
        while !state.stands {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wants the thread to end; returns before it does.
    pub fn request_end(&self) {
        self.wish(Wish::End);
    }

    /// Brings the thread out of the guest to look for interrupts, without a new wish.
    pub fn kick(&self) {
        self.kick.kick();
    }

    /// The thread's side: the target of kicks.
    pub(super) const fn kick_target(&self) -> &Kick {
        &self.kick
    }

    /// The thread's side: stands until it may run. False when it has to end.
    pub(super) fn stand_until_run(&self) -> bool {
        let mut state = self.lock();
        loop {
            match state.wish {
                Wish::Run => break,
                Wish::End => return false,
                Wish::Stand => {}
            }
            state.stands = true;
            self.changed.notify_all();
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.stands = false;
        self.attention.store(false, Ordering::SeqCst);
        true
    }

    /// The thread's side: whether it has to leave its loop. One atomic load.
    pub(super) fn wants_attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// The thread's side: its guest has ended, so it stands until somebody decides.
    pub(super) fn stand_by_itself(&self) {
        let mut state = self.lock();
        if state.wish == Wish::Run {
            state.wish = Wish::Stand;
        }
    }

    /// The thread's side: it will not run again.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        state.wish = Wish::End;
        state.stands = true;
        self.changed.notify_all();
    }

    fn wish(&self, wish: Wish) {
        let mut state = self.lock();
        if state.wish == Wish::End {
            return;
        }
        state.wish = wish;
        if wish == Wish::Run {
            // It does not run yet, but whoever waits for it to stand has to wait from now on.
            state.stands = false;
        }
        self.attention.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        drop(state);
        if wish != Wish::Run {
            self.kick.kick();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
