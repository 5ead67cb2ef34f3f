//! A unix stream socket as a serial port: one client at a time.
//!
//! A second client is let go at once rather than left waiting in silence. A client that has sent its
//! last byte may still read; it is gone when it hangs up.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ConsoleError;
use super::output::{Destination, Output};
use super::poll_set::{PollSet, Token};

/// A socket that is listened on, and the path that it made.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the path, by which our own is known.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `path`, in place of a socket that nobody listens on any more.
    pub(super) fn bind(path: &Path) -> Result<Self, ConsoleError> {
        let socket = match UnixListener::bind(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                remove_stale(path)?;
                UnixListener::bind(path)
            }
            result => result,
        };
        let socket = socket.map_err(|source| ConsoleError::socket(path, source))?;
        let listener = Self {
            identity: identity(path),
            path: path.to_owned(),
            socket,
        };
        listener
            .socket
            .set_nonblocking(true)
            .map_err(|source| ConsoleError::socket(path, source))?;
        Ok(listener)
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

fn remove_stale(path: &Path) -> Result<(), ConsoleError> {
    let error = |source| ConsoleError::socket(path, source);
    let metadata = path.symlink_metadata().map_err(error)?;
    if !metadata.file_type().is_socket() {
        return Err(ConsoleError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(refused) if refused.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(error)
        }
        Err(source) => Err(error(source)),
        Ok(_) => Err(ConsoleError::SocketInUse {
            path: path.to_owned(),
        }),
    }
}

/// Who is connected.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// Whether it has sent its last byte.
    at_end: bool,
}

impl Client {
    /// Has the client polled for input while there is `room`, or for its end after its last byte.
    pub(super) fn watch(&self, poll_set: &mut PollSet, room: bool) -> io::Result<()> {
        if self.at_end {
            poll_set.watch_for_hang_up(&self.stream)
        } else if room {
            poll_set.watch(&self.stream, Token::Input)
        } else {
            poll_set.ignore(&self.stream, Token::Input)
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at_end {
            return Ok(0);
        }
        self.stream.read(buffer)
    }

    fn has_hung_up(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.stream, PollFlags::empty())];
        match poll(&mut descriptors, Some(&Timespec::default())) {
            Ok(_) => descriptors
                .iter()
                .any(|descriptor| descriptor.revents().contains(PollFlags::HUP)),
            Err(_) => false,
        }
    }
}

/// Takes a client in if there is none, or if the one that there is has hung up.
pub(super) fn accept(
    listener: &Listener,
    client: &mut Option<Client>,
    poll_set: &mut PollSet,
    output: &Output,
) {
    let stream = match listener.socket.accept() {
        Ok((stream, _)) => stream,
        Err(error) => {
            if error.kind() != ErrorKind::WouldBlock {
                tracing::warn!("the serial port's socket cannot take a client: {error}");
            }
            return;
        }
    };
    if let Some(former) = client {
        if !former.has_hung_up() {
            tracing::info!("the serial port has a client already: another one was let go");
            return;
        }
        disconnect(client, poll_set, output);
    }
    let connected = stream.set_nonblocking(true).and_then(|()| {
        let output_stream = stream.try_clone()?;
        poll_set.watch(&stream, Token::Input)?;
        Ok(output_stream)
    });
    match connected {
        Ok(output_stream) => {
            output.connect(Destination::client(output_stream));
            *client = Some(Client {
                stream,
                at_end: false,
            });
        }
        Err(error) => tracing::warn!("the serial port's client cannot be served: {error}"),
    }
}

/// After the client's last byte: it is let go if it has hung up, and may read on otherwise.
pub(super) fn end(client: &mut Option<Client>, poll_set: &mut PollSet, output: &Output) {
    let Some(current) = client else { return };
    if current.has_hung_up() || current.at_end {
        disconnect(client, poll_set, output);
        return;
    }
    current.at_end = true;
    let watched = poll_set
        .ignore(&current.stream, Token::Input)
        .and_then(|()| current.watch(poll_set, true));
    if watched.is_err() {
        disconnect(client, poll_set, output);
    }
}

fn disconnect(client: &mut Option<Client>, poll_set: &mut PollSet, output: &Output) {
    if let Some(client) = client.take() {
        // The set forgets a descriptor whose last copy is closed in any case.
        let _ = poll_set.ignore(&client.stream, Token::Input);
    }
    output.connect(Destination::Nowhere);
}
