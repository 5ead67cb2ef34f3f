//! A unix stream socket on a path of the host, which is there for as long as somebody listens.
//!
//! Opened and dropped by the thread that assembles the machine. A process that is killed leaves its path behind;
//! the next one that wants it replaces it, as nobody listens there any more.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a path cannot be listened on: what, and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The host refuses.
    #[error("cannot listen on '{path}': {source}: name a path that may be made, in a directory that exists", path = path.display())]
    Host {
        /// The socket.
        path: PathBuf,
        /// What the host says.
        source: io::Error,
    },
    /// Another process listens.
    #[error("another process listens on '{path}': end it, or choose another path", path = path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The path is no socket.
    #[error("'{path}' is there and is no socket: remove it, or choose another path", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
}

/// A socket that is listened on, and the path that it made. The path is gone with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the path, by which our own is known.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `path`, in place of a socket that nobody listens on any more. The socket does not block.
    ///
    /// # Errors
    ///
    /// [`ListenError`] when the path is somebody else's, or the host refuses.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let host = |source| ListenError::Host {
            path: path.to_owned(),
            source,
        };
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            result => result,
        };
        let socket = socket.map_err(host)?;
        let listener = Self {
            identity: identity(path),
            path: path.to_owned(),
            socket,
        };
        listener.socket.set_nonblocking(true).map_err(host)?;
        Ok(listener)
    }

    /// The socket.
    pub const fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // It is our own; whoever removed it before has done no harm.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let host = |source| ListenError::Host {
        path: path.to_owned(),
        source,
    };
    let metadata = path.symlink_metadata().map_err(host)?;
    if !metadata.file_type().is_socket() {
        return Err(ListenError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(host)
        }
        Err(source) => Err(host(source)),
        Ok(_) => Err(ListenError::InUse {
            path: path.to_owned(),
        }),
    }
}
