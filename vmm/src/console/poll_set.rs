//! What a console polls, behind one descriptor of its own: an epoll set, which can be polled itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

/// Which of the two things that a console polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// A socket that is listened on.
    Listener,
    /// What input is read from.
    Input,
}

/// What is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) listener: bool,
    pub(super) input: bool,
}

/// An epoll set of at most one listener and one input.
#[derive(Debug)]
pub(super) struct PollSet {
    epoll: OwnedFd,
    /// Polled in place of an input that is always ready and that epoll therefore does not take, such as
    /// a regular file or /dev/null: an event that stays signalled.
    stand_in: Option<OwnedFd>,
    input_is_watched: bool,
}

impl PollSet {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            stand_in: None,
            input_is_watched: false,
        })
    }

    /// Polls `source`; again is as good as once.
    pub(super) fn watch(&mut self, source: &impl AsFd, token: Token) -> io::Result<()> {
        self.add(source.as_fd(), token, epoll::EventFlags::IN)
    }

    /// Polls `source` for its end alone.
    pub(super) fn watch_for_hang_up(&mut self, source: &impl AsFd) -> io::Result<()> {
        self.add(source.as_fd(), Token::Input, epoll::EventFlags::HUP)
    }

    /// No longer polls `source`; again is as good as once.
    pub(super) fn ignore(&mut self, source: &impl AsFd, token: Token) -> io::Result<()> {
        if token == Token::Input {
            if !self.input_is_watched {
                return Ok(());
            }
            self.input_is_watched = false;
        }
        let source = self.stand_in.as_ref().map_or(source.as_fd(), AsFd::as_fd);
        Ok(epoll::delete(&self.epoll, source)?)
    }

    /// What is ready now.
    pub(super) fn ready(&self) -> Ready {
        let mut events = [const {
            epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            }
        }; 2];
        let now = Timespec::default();
        // Only a signal can disturb this; the set is still ready afterwards and is asked again.
        let count = epoll::wait(&self.epoll, &mut events[..], Some(&now)).unwrap_or(0);
        let mut ready = Ready::default();
        for event in events.iter().take(count) {
            if event.data.u64() == Token::Listener as u64 {
                ready.listener = true;
            } else {
                ready.input = true;
            }
        }
        ready
    }

    fn add(
        &mut self,
        source: BorrowedFd<'_>,
        token: Token,
        flags: epoll::EventFlags,
    ) -> io::Result<()> {
        if token == Token::Input && self.input_is_watched {
            return Ok(());
        }
        let data = epoll::EventData::new_u64(token as u64);
        let result = match &self.stand_in {
            Some(stand_in) => epoll::add(&self.epoll, stand_in, data, flags),
            None => epoll::add(&self.epoll, source, data, flags),
        };
        match result {
            Err(Errno::PERM) if self.stand_in.is_none() => {
                let event = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                epoll::add(&self.epoll, &event, data, flags)?;
                self.stand_in = Some(event);
            }
            result => result?,
        }
        if token == Token::Input {
            self.input_is_watched = true;
        }
        Ok(())
    }
}

impl AsFd for PollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
