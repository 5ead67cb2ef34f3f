//! The host's side of the whole device: a unix socket on which clients ask for ports of the guest, and the
//! paths beside it where servers of the host listen for the guest.
//!
//! A client connects to PATH and writes `CONNECT PORT`; a guest that connects to port N of the host gets
//! whoever listens on `PATH_N`. This is how Firecracker and Cloud Hypervisor have it.
//!
//! Opened by the thread that assembles the machine, lent to one device after the other, and used by that
//! device's worker. Whoever made the path removes it.

use std::ffi::c_char;
use std::io::{self, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Room for a path and its zero in a unix socket's address (unix(7)).
const ADDRESS_PATH_BYTES: usize = 108;
/// `_` and the digits of the highest port.
const SUFFIX_MAX_BYTES: usize = 11;

/// The unix socket of a vsock device.
#[derive(Debug)]
pub struct HostSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl HostSocket {
    /// The longest path that still has room for a port behind it, in bytes.
    pub const PATH_MAX_BYTES: usize = ADDRESS_PATH_BYTES - 1 - SUFFIX_MAX_BYTES;

    /// A socket that listens on `path`, which is at most [`PATH_MAX_BYTES`](Self::PATH_MAX_BYTES) long:
    /// where it is longer, guests cannot reach ports of many digits.
    ///
    /// # Errors
    ///
    /// What the host answers when the socket is not to block any more.
    pub fn new(listener: UnixListener, path: PathBuf) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }

    /// The path on which clients find it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next client; its stream does not block.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// A stream to whoever listens for `port`, which does not block. A server whose queue is full does not
    /// hold the device up: it is as if there were none.
    pub(super) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let address = self.address(port)?;
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: the call takes numbers alone.
        let socket = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
        // SAFETY: the descriptor was just made, and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).unwrap_or(0);
        let pointer: *const libc::sockaddr_un = &raw const address;
        // SAFETY: the address is a whole `sockaddr_un` of this length, and lives until the call returns.
        check(unsafe { libc::connect(socket.as_raw_fd(), pointer.cast(), length) })?;
        Ok(UnixStream::from(socket))
    }

    fn address(&self, port: u32) -> io::Result<libc::sockaddr_un> {
        let mut path = [0; ADDRESS_PATH_BYTES];
        let (text, zero) = path.split_at_mut(ADDRESS_PATH_BYTES.saturating_sub(1));
        let mut rest = &mut *text;
        let written = rest.write_all(self.path.as_os_str().as_bytes());
        written
            .and_then(|()| write!(rest, "_{port}"))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidFilename))?;
        zero.fill(0);
        Ok(libc::sockaddr_un {
            sun_family: libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or(0),
            sun_path: path.map(|byte| c_char::from_ne_bytes([byte])),
        })
    }
}

impl AsRawFd for HostSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

fn check(result: i32) -> io::Result<i32> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn at(path: &Path) -> HostSocket {
        HostSocket::new(UnixListener::bind(path).unwrap(), path.to_owned()).unwrap()
    }

    #[test]
    fn a_port_is_a_path_beside_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let host = at(&folder.path().join("vm"));
        let refused = host.connect(1024).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        for port in [0, 1024, u32::MAX] {
            let server = UnixListener::bind(folder.path().join(format!("vm_{port}"))).unwrap();
            let mut stream = host.connect(port).unwrap();
            let mut accepted = server.accept().unwrap().0;
            accepted.write_all(b"hello").unwrap();
            let mut bytes = [0; 5];
            stream.read_exact(&mut bytes).unwrap();
            let nothing = stream.read(&mut bytes).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn the_longest_path_has_room_for_the_highest_port() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().as_os_str().len() + 1;
        for (length, fits) in [(HostSocket::PATH_MAX_BYTES, true), (97, false)] {
            let path = folder.path().join("x".repeat(length - base));
            let host = at(&path);
            assert_eq!(host.address(u32::MAX).is_ok(), fits, "{length}");
            assert!(host.address(7).is_ok());
            assert_eq!(host.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn a_server_with_a_full_queue_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let host = at(&folder.path().join("vm"));
        let server = UnixListener::bind(folder.path().join("vm_5")).unwrap();
        // SAFETY: the descriptor is the listener's; the call takes numbers alone.
        assert_eq!(unsafe { libc::listen(server.as_raw_fd(), 0) }, 0);
        let _first = host.connect(5).unwrap();
        let full = host.connect(5).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
