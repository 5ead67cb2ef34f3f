//! The advisory lock that keeps two machines from writing one image.
//!
//! An open file description lock (`F_OFD_SETLK`, fcntl(2)) on the whole file: exclusive for writers, shared
//! for readers. It goes with the file descriptor, however the process ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// How the lock went.
#[derive(Debug)]
pub(crate) enum LockOutcome {
    /// The lock is held until the file is closed.
    Held,
    /// Somebody else holds a lock that excludes this one.
    Taken,
    /// The host has no locks for this file.
    Unavailable(io::Error),
}

/// A locked file, unlocked when it is dropped, whoever has a copy of its descriptor: a process that is being
/// started has all of them for a moment.
#[derive(Debug)]
pub(crate) struct LockedFile(File);

impl LockedFile {
    /// A file on which [`lock`] was successful.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing it does the same, a little later.
        let _unlocked_when_closed = set(&self.0, libc::F_UNLCK);
    }
}

/// Locks `file` without waiting: shared when `shared`, else exclusively.
pub(crate) fn lock(file: &File, shared: bool) -> LockOutcome {
    let error = match set(file, if shared { libc::F_RDLCK } else { libc::F_WRLCK }) {
        Ok(()) => return LockOutcome::Held,
        Err(error) => error,
    };
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => LockOutcome::Taken,
        _ => LockOutcome::Unavailable(error),
    }
}

/// Sets a lock of this kind on the whole file.
fn set(file: &File, kind: libc::c_int) -> io::Result<()> {
    let (Ok(kind), Ok(whence)) = (
        libc::c_short::try_from(kind),
        libc::c_short::try_from(libc::SEEK_SET),
    ) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let whole_file = libc::flock {
        l_type: kind,
        l_whence: whence,
        l_start: 0,
        l_len: 0,
        // Must be 0 for this kind of lock.
        l_pid: 0,
    };
    // SAFETY: the file is open, and fcntl only reads the structure, which lives until it returns.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole_file) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
