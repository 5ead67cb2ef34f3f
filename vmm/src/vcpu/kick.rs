//! Bringing a vCPU thread out of the guest.
//!
//! A kick is a signal whose handler, on the vCPU's own thread, sets `immediate_exit` in the page that
//! the thread shares with KVM (KVM API, 5 "The kvm_run structure"). If the signal comes while the guest
//! runs, KVM_RUN returns because of the signal; if it comes just before KVM_RUN, KVM_RUN returns because
//! of the flag. A kick that follows a change is therefore seen after that change, always.

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs. Constant-initialised and without a
    /// destructor, so that a signal handler can use it.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn handle_kick(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {
    let flag = IMMEDIATE_EXIT.get();
    if !flag.is_null() {
        // SAFETY: `Target` put the pointer there on this thread and takes it away before the page that
        // it points into goes.
        let flag = unsafe { AtomicU8::from_ptr(flag) };
        flag.store(1, Ordering::SeqCst);
    }
}

/// Installs the handler, once for the process.
fn install_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            register_signal_handler(SIGRTMIN(), handle_kick).map_err(|error| error.errno())
        })
        .map_err(io::Error::from_raw_os_error)
}

/// The thread that a vCPU runs on, while it runs there.
#[derive(Debug, Default)]
pub struct Kick {
    thread: Mutex<Option<libc::pthread_t>>,
}

impl Kick {
    /// Brings the thread out of the guest, or keeps it from entering. Does nothing when the vCPU is on
    /// no thread.
    pub fn kick(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = *thread {
            // SAFETY: a thread takes itself out of this lock before it ends, so it is alive now. An
            // error could only mean that it is not, or that the signal does not exist.
            unsafe { libc::pthread_kill(thread, SIGRTMIN()) };
        }
    }

    /// Makes the calling thread the target of kicks, which set `immediate_exit`, until the returned
    /// guard goes.
    ///
    /// # Safety
    ///
    /// `immediate_exit` stays valid, and is accessed atomically or by KVM alone, for as long as the
    /// guard lives.
    ///
    /// # Errors
    ///
    /// The host's, when the signal handler cannot be installed.
    pub unsafe fn target(&self, immediate_exit: *mut u8) -> io::Result<Target<'_>> {
        install_handler()?;
        IMMEDIATE_EXIT.set(immediate_exit);
        // SAFETY: always sound.
        let thread = unsafe { libc::pthread_self() };
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Target { kick: self })
    }
}

/// While this lives, kicks reach the thread that made it.
#[derive(Debug)]
pub struct Target<'a> {
    kick: &'a Kick,
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        *self
            .kick
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}
