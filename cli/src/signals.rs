//! Signals of the host as events: blocked in every thread, and read from a descriptor by the thread that
//! drives the machine.

use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::null;

use vmm_sys_util::signal::{block_signal, create_sigset};

/// What asks a process to end.
const ENDING: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
/// What lets it go on: a machine that was paused as well.
const CONTINUING: libc::c_int = libc::SIGCONT;
/// What stops it, of which a terminal has to know.
const STOPPING: libc::c_int = libc::SIGTSTP;
/// The size of a signalfd_siginfo, which begins with the signal's number (signalfd(2)).
const RECORD_BYTES: usize = size_of::<libc::signalfd_siginfo>();

/// The descriptor.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// Blocks the signals in this thread, and so in all that it starts. A signal that was ignored
    /// before, as `nohup` does, is left alone. `terminal` says whether stops by its keys matter.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn block(terminal: bool) -> io::Result<Self> {
        let mut signals: Vec<_> = ENDING
            .into_iter()
            .filter(|&signal| !is_ignored(signal))
            .collect();
        signals.push(CONTINUING);
        if terminal {
            signals.push(STOPPING);
        }
        for &signal in &signals {
            block_signal(signal).map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
        let set = create_sigset(&signals)?;
        // SAFETY: the set is initialised and lives through the call.
        let descriptor =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made above and has no other owner.
        Ok(Self(File::from(unsafe {
            OwnedFd::from_raw_fd(descriptor)
        })))
    }

    /// A descriptor that is readable when a signal has come.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn event_source(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }

    /// The number of the next signal that has come, if any.
    pub fn next(&mut self) -> Option<i32> {
        let mut record = [0; RECORD_BYTES];
        let count = self.0.read(&mut record).ok()?;
        if count < RECORD_BYTES {
            return None;
        }
        let number = record.first_chunk().copied().map(u32::from_ne_bytes)?;
        i32::try_from(number).ok()
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is set, and the action is written.
    unsafe { libc::sigaction(signal, null(), action.as_mut_ptr()) };
    // SAFETY: zero is a valid sigaction, whether or not the call has filled it.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_this_thread_is_read_rather_than_deadly() {
        std::thread::spawn(|| {
            let mut signals = Signals::block(false).unwrap();
            assert_eq!(signals.next(), None);
            // SAFETY: the signal is blocked in this thread, which alone it is sent to.
            unsafe { libc::raise(libc::SIGTERM) };
            assert_eq!(signals.next(), Some(libc::SIGTERM));
            // SAFETY: as above.
            unsafe { libc::raise(libc::SIGCONT) };
            assert_eq!(signals.next(), Some(libc::SIGCONT));
            assert_eq!(signals.next(), None);
        })
        .join()
        .unwrap();
    }
}
