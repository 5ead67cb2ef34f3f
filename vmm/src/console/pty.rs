//! A pseudo-terminal as a serial port.
//!
//! The other side is kept open as well: without a reader the kernel would report a hang-up for as long
//! as nobody has opened it, instead of nothing.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// Both sides of a pseudo-terminal.
#[derive(Debug)]
pub(super) struct Pty {
    /// Our side, which does not block.
    pub(super) device: File,
    /// What a user opens.
    pub(super) path: PathBuf,
    _user_side: OwnedFd,
}

/// Makes a pseudo-terminal in raw mode.
pub(super) fn open() -> io::Result<Pty> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let device = openpt(flags)?;
    grantpt(&device)?;
    unlockpt(&device)?;
    let name = ptsname(&device, Vec::new())?;
    let user_side = ioctl_tiocgptpeer(&device, flags)?;
    let mut mode = tcgetattr(&user_side)?;
    mode.make_raw();
    tcsetattr(&user_side, OptionalActions::Now, &mode)?;
    fcntl_setfl(&device, fcntl_getfl(&device)? | OFlags::NONBLOCK)?;
    Ok(Pty {
        device: device.into(),
        path: PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes())),
        _user_side: user_side,
    })
}

impl AsFd for Pty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl Read for Pty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.read(buffer)
    }
}
