//! The signals of a crash: the terminal is given back before the process dies of them.

use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;

use super::check;

/// What the kernel sends to a process that has gone wrong, and `abort`.
const SIGNALS: [libc::c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// What was done about the signals before: Rust's runtime tells of stack overflows.
static FORMER: [OnceLock<libc::sigaction>; SIGNALS.len()] =
    [const { OnceLock::new() }; SIGNALS.len()];

/// Has [`super::restore`] called before the process dies of a crash.
pub(super) fn restore_before() -> io::Result<()> {
    for (signal, former) in SIGNALS.into_iter().zip(&FORMER) {
        if former.get().is_some() {
            continue;
        }
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_crash;
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        let written = action.as_mut_ptr();
        // SAFETY: zero is a valid sigaction.
        let fields = unsafe { &mut *written };
        fields.sa_sigaction = handler as libc::sighandler_t;
        fields.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut old = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the action is initialised; the handler makes async-signal-safe calls alone.
        check(unsafe { libc::sigaction(signal, written, old.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, and then it has filled the whole of it.
        let old = unsafe { old.assume_init() };
        former.get_or_init(|| old);
    }
    Ok(())
}

/// Restores the terminal, then has the signal do what it did before: a fault happens again when this
/// returns, and Rust's handler may have something to say about it; any other signal is sent again, to
/// kill at once, for that handler would wait for a fault.
extern "C" fn on_crash(
    signal: libc::c_int,
    information: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    super::restore();
    // SAFETY: the kernel hands the handler a siginfo.
    let by_the_kernel = unsafe { (*information).si_code } > 0;
    let is_fault = matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE
    );
    if !(by_the_kernel && is_fault) {
        // SAFETY: the default action is always sound.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        // SAFETY: raising a signal is always sound. This one is delivered when the handler returns.
        unsafe { libc::raise(signal) };
        return;
    }
    for (number, former) in SIGNALS.into_iter().zip(&FORMER) {
        if number == signal
            && let Some(former) = former.get()
        {
            // SAFETY: the action is one that the kernel gave.
            unsafe { libc::sigaction(signal, former, null_mut()) };
        }
    }
}
