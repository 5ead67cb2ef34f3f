//! Waiting for any of several descriptors.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Waits until at least one of `descriptors` is readable, closed or broken, and says which. A place
/// without a descriptor is never ready. A signal is no reason to return.
///
/// # Errors
///
/// The host's, which has no memory for it.
pub fn until_readable(descriptors: &[Option<BorrowedFd<'_>>]) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = descriptors
        .iter()
        .map(|descriptor| libc::pollfd {
            // A negative descriptor is skipped (poll(2)).
            fd: descriptor.map_or(-1, |descriptor| descriptor.as_raw_fd()),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let count = polled.len() as libc::nfds_t;
    loop {
        // SAFETY: pointer and count are those of the vector, which lives through the call.
        let result = unsafe { libc::poll(polled.as_mut_ptr(), count, -1) };
        if result >= 0 {
            return Ok(polled.iter().map(|entry| entry.revents != 0).collect());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
