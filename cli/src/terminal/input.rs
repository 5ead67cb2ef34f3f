//! Keys on their way to the guest: the escape key is looked for as soon as it is typed, also while the
//! guest takes no input. What it has not taken waits in a pipe.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;

use super::EscapeKey;

/// What came of a look at the keyboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// Text for the guest, or nothing.
    Text,
    /// The escape key.
    Escape,
}

/// The terminal's keys.
#[derive(Debug)]
pub struct TerminalInput {
    /// Polls the keyboard, and can be polled itself, until the terminal is gone.
    poll: OwnedFd,
    keyboard: File,
    /// None when the terminal is gone.
    guest: Option<PipeWriter>,
    escape: EscapeKey,
    buffer: [u8; 1024],
}

impl TerminalInput {
    /// Keys of `keyboard`, and the end at which they come out.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn new(keyboard: &impl AsFd, escape: EscapeKey) -> io::Result<(Self, PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let flags = rustix::fs::fcntl_getfl(&writer)?;
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK)?;
        let keyboard = File::from(keyboard.as_fd().try_clone_to_owned()?);
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&poll, &keyboard, data, epoll::EventFlags::IN)?;
        let input = Self {
            poll,
            keyboard,
            guest: Some(writer),
            escape,
            buffer: [0; 1024],
        };
        Ok((input, reader))
    }

    /// A descriptor that is readable when [`service`](Self::service) has something to do.
    ///
    /// # Errors
    ///
    /// What the host says.
    pub fn event_source(&self) -> io::Result<OwnedFd> {
        self.poll.try_clone()
    }

    /// Takes what was typed. Never waits: what does not fit into the pipe is lost, as it would be at a
    /// serial port that nobody reads.
    pub fn service(&mut self) -> Typed {
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }];
        let now = rustix::event::Timespec::default();
        match epoll::wait(&self.poll, &mut events[..], Some(&now)) {
            Ok(0) | Err(Errno::INTR) => return Typed::Text,
            Ok(_) | Err(_) => {}
        }
        let typed = match self.keyboard.read(&mut self.buffer) {
            Ok(count @ 1..) => self.buffer.get(..count).unwrap_or_default(),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Typed::Text;
            }
            Ok(0) | Err(_) => {
                tracing::info!("the terminal is gone");
                // A set that no longer knows it is as silent.
                let _ = epoll::delete(&self.poll, &self.keyboard);
                self.guest = None;
                return Typed::Text;
            }
        };
        let (text, escape) = self.escape.split(typed);
        if let Some(guest) = &mut self.guest
            && let Err(error) = guest.write_all(text)
        {
            tracing::debug!("the guest does not take what is typed: {error}");
        }
        if escape { Typed::Escape } else { Typed::Text }
    }
}

#[cfg(test)]
mod tests;
