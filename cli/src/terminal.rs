//! The terminal on standard input: raw while a machine runs, as it was on every way out.
//!
//! Ways out are the end of [`RawMode`], a panic, and the signals of a crash; all of them come to
//! [`restore`], which only makes calls that a signal handler may make. The library's terminal trait
//! (vmm-sys-util) does not keep the mode that it found, so that it cannot give it back.

mod crash;
mod escape_key;
mod input;

use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub use escape_key::EscapeKey;
pub use input::{TerminalInput, Typed};

const TERMINAL: libc::c_int = libc::STDIN_FILENO;

/// The mode that was found.
static ORIGINAL: OnceLock<libc::termios> = OnceLock::new();
/// Whether the terminal now has another.
static IS_RAW: AtomicBool = AtomicBool::new(false);

/// Whether standard input is a terminal.
pub fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Raw mode, for as long as this lives.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Has the terminal give each key as it is typed, signals and all, and show nothing by itself.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn enter() -> io::Result<Self> {
        let mut mode = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: `mode` is a termios to be written.
        check(unsafe { libc::tcgetattr(TERMINAL, mode.as_mut_ptr()) })?;
        // SAFETY: the call succeeded, and then it has filled the whole of it.
        let mode = unsafe { mode.assume_init() };
        ORIGINAL.get_or_init(|| mode);
        crash::restore_before()?;
        make_raw()?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Enters raw mode again, after a stop in which a shell may have changed it.
pub fn make_raw() -> io::Result<()> {
    let Some(mut mode) = ORIGINAL.get().copied() else {
        return Ok(());
    };
    let output_flags = mode.c_oflag;
    // SAFETY: `mode` is a termios that the host filled.
    unsafe { libc::cfmakeraw(&raw mut mode) };
    // Lines of the log go to the same terminal and want their carriage return.
    mode.c_oflag = output_flags;
    IS_RAW.store(true, Ordering::SeqCst);
    // SAFETY: `mode` is a termios that lives through the call.
    check(unsafe { libc::tcsetattr(TERMINAL, libc::TCSANOW, &raw const mode) })
}

/// Gives the terminal the mode that it had. Does nothing if it has it. May be called by a signal
/// handler.
pub fn restore() {
    if !IS_RAW.swap(false, Ordering::SeqCst) {
        return;
    }
    let Some(mode) = ORIGINAL.get() else { return };
    let mut background_write = MaybeUninit::<libc::sigset_t>::uninit();
    let mut former = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written here.
    unsafe { libc::sigemptyset(background_write.as_mut_ptr()) };
    // A process in the background that changes the terminal is stopped, unless it blocks the signal.
    // SAFETY: the set was made by the call before.
    unsafe { libc::sigaddset(background_write.as_mut_ptr(), libc::SIGTTOU) };
    // SAFETY: one set is read and the other written.
    unsafe {
        libc::pthread_sigmask(
            libc::SIG_BLOCK,
            background_write.as_ptr(),
            former.as_mut_ptr(),
        )
    };
    // SAFETY: the mode lives for ever. A terminal that is gone needs no mode.
    unsafe { libc::tcsetattr(TERMINAL, libc::TCSANOW, mode) };
    // SAFETY: the former set was filled by the call before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, former.as_ptr(), std::ptr::null_mut()) };
}

/// Stops the process as the terminal's stop key would have done, and goes on in raw mode.
pub fn suspend() {
    restore();
    // SAFETY: raising a signal is always sound. SIGSTOP cannot be blocked, so that this returns when
    // the process goes on.
    unsafe { libc::raise(libc::SIGSTOP) };
    if let Err(error) = make_raw() {
        tracing::warn!("the terminal cannot be made raw again: {error}");
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
