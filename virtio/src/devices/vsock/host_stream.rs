//! The host's end of one connection: a unix stream that never blocks, and the guest's bytes that it has not
//! taken yet.
//!
//! epoll tells of it edge by edge: what it said holds until a call answers that there is nothing more. Bytes go
//! between the stream and the guest's memory directly; only those that the host does not take are copied.

use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::EventSet;

use crate::queue::Buffers;
use crate::tap::{IoVectorStorage, IoVectors};

use super::byte_ring::ByteRing;
use super::credit::BUFFER_BYTES;

/// The longest first line of a client: the word, a port of ten digits, a line's end of either kind, and some
/// spaces.
const FIRST_LINE_MAX_BYTES: usize = 32;

/// A stream of the host.
#[derive(Debug)]
pub(super) struct HostStream {
    socket: UnixStream,
    readable: bool,
    writable: bool,
    /// Neither side can send, or its other end is gone.
    hung_up: bool,
    waiting: ByteRing,
    reading_ended: bool,
    writing_ended: bool,
}

/// What reading gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// This many bytes, at least one.
    Bytes(u32),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

/// What a client's first line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstLine {
    /// Not whole yet.
    Incomplete,
    /// The port of the guest that it wants.
    Port(u32),
    /// Something else.
    Wrong,
}

/// The host takes no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

impl HostStream {
    /// A stream of which epoll has not told anything yet.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            readable: false,
            // A new one has room.
            writable: true,
            hung_up: false,
            waiting: ByteRing::new(usize::try_from(BUFFER_BYTES).unwrap_or(0)),
            reading_ended: false,
            writing_ended: false,
        }
    }

    /// The events that it is registered with.
    pub(super) fn events() -> EventSet {
        EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED
    }

    /// Takes what epoll says.
    pub(super) fn note_ready(&mut self, ready: EventSet) {
        let end = EventSet::HANG_UP | EventSet::ERROR;
        if ready.intersects(EventSet::IN | EventSet::READ_HANG_UP | end) {
            self.readable = true;
        }
        if ready.intersects(EventSet::OUT | end) {
            self.writable = true;
        }
        if ready.intersects(end) {
            self.hung_up = true;
        }
    }

    /// Whether reading may give something, be it the end.
    pub(super) const fn has_data(&self) -> bool {
        self.readable
    }

    /// Whether nobody is there to take bytes.
    pub(super) const fn is_hung_up(&self) -> bool {
        self.hung_up
    }

    /// Whether nothing waits to be taken.
    pub(super) fn is_flushed(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Looks at a client's first line, and takes it when it is whole. What follows it stays.
    pub(super) fn read_first_line(&mut self) -> FirstLine {
        let mut bytes = [0; FIRST_LINE_MAX_BYTES];
        let count = match self.peek(&mut bytes) {
            Ok(0) => return FirstLine::Wrong,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return FirstLine::Incomplete;
            }
            Err(_) => return FirstLine::Wrong,
        };
        let bytes = bytes.get(..count).unwrap_or_default();
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            // More of it is another event.
            self.readable = false;
            return match count < FIRST_LINE_MAX_BYTES && !self.hung_up {
                true => FirstLine::Incomplete,
                false => FirstLine::Wrong,
            };
        };
        let (line, _) = bytes.split_at(end);
        let Some(port) = port_of(line) else {
            return FirstLine::Wrong;
        };
        let mut taken = [0; FIRST_LINE_MAX_BYTES];
        let whole = taken.get_mut(..=end).unwrap_or_default();
        match io::Read::read_exact(&mut &self.socket, whole) {
            Ok(()) => FirstLine::Port(port),
            Err(_) => FirstLine::Wrong,
        }
    }

    fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.socket.as_raw_fd();
        let start = bytes.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `bytes.len()` bytes to a slice that is borrowed exclusively.
        let got = unsafe { libc::recv(descriptor, start, bytes.len(), libc::MSG_PEEK) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }

    /// Tells the client that it is connected, by the port that it has on this side.
    pub(super) fn write_greeting(&mut self, port: u32) -> Result<(), Closed> {
        let mut line = [0; 16];
        let mut rest = line.as_mut_slice();
        // 14 bytes at the most.
        let _fits = writeln!(rest, "OK {port}");
        let unused = rest.len();
        let length = line.len().saturating_sub(unused);
        let line = line.get(..length).unwrap_or_default();
        // The first bytes of a stream have room in it.
        match self.send(line) {
            Ok(sent) if sent == length => Ok(()),
            _ => Err(Closed),
        }
    }

    /// Reads into `buffers`, of the guest.
    pub(super) fn read(&mut self, buffers: Buffers<'_>, storage: &mut IoVectorStorage) -> Read {
        let mut vectors = IoVectors::new(storage);
        // What has no room is read with the next packet.
        let _full = vectors.push_buffers(buffers);
        loop {
            match vectors.read_from(&self.socket) {
                Ok(0) => return self.end_of_data(),
                Ok(count) => return Read::Bytes(u32::try_from(count).unwrap_or(u32::MAX)),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => {
                        self.readable = false;
                        return Read::Nothing;
                    }
                    _ => return self.end_of_data(),
                },
            }
        }
    }

    fn end_of_data(&mut self) -> Read {
        self.readable = false;
        Read::End
    }

    /// Passes `data` of the guest's on, or keeps it, which has room for what the guest may send. Returns how
    /// much was passed on.
    pub(super) fn write(
        &mut self,
        data: Buffers<'_>,
        storage: &mut IoVectorStorage,
    ) -> Result<u32, Closed> {
        let mut sent = 0;
        if self.waiting.is_empty() && self.writable {
            let mut vectors = IoVectors::new(storage);
            let _full = vectors.push_buffers(data);
            sent = loop {
                match vectors.send_to(&self.socket) {
                    Ok(count) => break u64::try_from(count).unwrap_or(u64::MAX),
                    Err(error) => match error.kind() {
                        ErrorKind::Interrupted => {}
                        ErrorKind::WouldBlock => break 0,
                        _ => return Err(Closed),
                    },
                }
            };
        }
        let Some((_, rest)) = data.split_at(sent) else {
            return Err(Closed);
        };
        if !rest.is_empty() {
            self.writable = false;
            let kept = self.waiting.append(rest);
            debug_assert_eq!(
                u64::try_from(kept).ok(),
                Some(rest.len()),
                "beyond the credit"
            );
        }
        Ok(clamp(sent))
    }

    /// Passes what waits on, as far as the host takes it. Returns how much that was.
    pub(super) fn flush(&mut self) -> Result<u32, Closed> {
        let mut flushed = 0_u32;
        while self.writable && !self.waiting.is_empty() {
            let whole = self.waiting.front().len();
            let sent = self.send(self.waiting.front())?;
            self.waiting.consume(sent);
            flushed = flushed.saturating_add(u32::try_from(sent).unwrap_or(u32::MAX));
            if sent < whole {
                self.writable = false;
            }
        }
        Ok(flushed)
    }

    /// What waits is of no more use.
    pub(super) fn discard(&mut self) {
        self.waiting.clear();
    }

    /// How many bytes the host takes of `bytes`.
    fn send(&self, bytes: &[u8]) -> Result<usize, Closed> {
        let descriptor = self.socket.as_raw_fd();
        loop {
            // SAFETY: the kernel reads at most `bytes.len()` bytes of a slice that is borrowed.
            let sent = unsafe {
                libc::send(
                    descriptor,
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    libc::MSG_NOSIGNAL,
                )
            };
            match usize::try_from(sent).map_err(|_| io::Error::last_os_error().kind()) {
                Ok(sent) => return Ok(sent),
                Err(ErrorKind::Interrupted) => {}
                Err(ErrorKind::WouldBlock) => return Ok(0),
                Err(_) => return Err(Closed),
            }
        }
    }

    /// The host sees the end of what the guest sends, once nothing waits any more.
    pub(super) fn end_writing(&mut self) {
        if self.is_flushed() && !std::mem::replace(&mut self.writing_ended, true) {
            // A stream whose other end is gone refuses, and then there is nobody to tell.
            let _gone = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// The host's writes fail from now on, for the guest takes no more.
    pub(super) fn end_reading(&mut self) {
        if !std::mem::replace(&mut self.reading_ended, true) {
            let _gone = self.socket.shutdown(Shutdown::Read);
        }
    }
}

impl AsRawFd for HostStream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The port of `CONNECT PORT`, in letters of either case.
fn port_of(line: &[u8]) -> Option<u32> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_ascii_whitespace();
    let word = words.next()?;
    let port = words.next()?;
    let is_alone = words.next().is_none();
    // A number has no sign.
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    (word.eq_ignore_ascii_case("CONNECT") && is_alone && is_number)
        .then(|| port.parse().ok())
        .flatten()
}

fn clamp(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
