//! A unix stream socket as a serial port: one client at a time.
//!
//! A second client is let go at once rather than left waiting in silence. A client that has sent its
//! last byte may still read; it is gone when it hangs up.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::output::{Destination, Output};
use super::poll_set::{PollSet, Token};
use crate::listener::Listener;

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
    let stream = match listener.socket().accept() {
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
