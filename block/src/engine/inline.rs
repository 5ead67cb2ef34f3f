//! What need not wait is done at once, on the thread that submits.
//!
//! A read that the page cache has, and a write that goes there, is a copy of memory: handing it to
//! anybody else costs more than doing it. Reads ask with `RWF_NOWAIT` and are never held up by the disk.
//! Few file systems know that flag for writes through the page cache (ext4 does not, and io_uring would
//! hand each to a thread of the kernel), so small writes are simply done; when the host holds one up,
//! because there is too much that is not on the disk yet, the next ones go the other way for a while.

use std::io;
use std::time::{Duration, Instant};

use crate::disk::Image;
use crate::host;
use crate::request::Direction;
use crate::transfer::{VECTORS_MAX, transfer_once};
use crate::{IoBuffer, disk::CacheMode};

/// Larger transfers are worth the way to somebody else.
const READ_MAX_BYTES: u64 = 1 << 20;
const WRITE_MAX_BYTES: u64 = 128 << 10;
/// After this many reads in a row that the page cache did not have, only some are tried.
const MISSES_IN_A_ROW: u32 = 8;
/// Of so many, one is tried.
const TRIED_OF: u32 = 16;
/// A write that took as long was held up, or lost its processor for a while.
const HELD_UP: Duration = Duration::from_millis(1);
/// After so many of them in a row it was not the processor.
const HELD_UP_IN_A_ROW: u32 = 3;
/// For so long writes then go the other way.
const DETOUR: Duration = Duration::from_millis(50);

/// What is done at once for one disk.
#[derive(Debug)]
pub(super) struct Inline {
    reads: Means,
    writes: Means,
    misses: u32,
    held_up: u32,
    detour_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Not at all.
    Never,
    /// With `RWF_NOWAIT`.
    NoWait,
    /// Through the page cache, which may hold it up.
    PageCache,
    /// A file in memory: nothing holds it up.
    Memory,
}

/// How far an attempt came.
#[derive(Debug)]
pub(super) enum Attempt {
    /// All of it was transferred.
    Done,
    /// So many bytes were, possibly none; somebody else has to do the rest.
    Partly(usize),
    /// The host refused it.
    Failed(io::Error),
}

impl Inline {
    pub(super) fn new(image: &Image) -> Self {
        let in_memory = host::is_in_memory(&image.file);
        let (reads, writes) = match (image.direct.is_some(), in_memory) {
            (true, _) => (Means::Never, Means::Never),
            (false, true) => (Means::Memory, Means::Memory),
            (false, false) => (Means::NoWait, Means::PageCache),
        };
        Self {
            reads,
            writes,
            misses: 0,
            held_up: 0,
            detour_until: None,
        }
    }

    /// Nothing is done at once: all goes to whoever carries it out later.
    #[cfg(test)]
    pub(super) fn nothing() -> Self {
        Self {
            reads: Means::Never,
            writes: Means::Never,
            misses: 0,
            held_up: 0,
            detour_until: None,
        }
    }

    /// Transfers what can be transferred now. `alone` says that no other request is under way: a ring
    /// takes many reads in one system call, and tries the page cache itself.
    pub(super) fn attempt(
        &mut self,
        alone: bool,
        image: &Image,
        direction: Direction,
        offset: u64,
        buffers: &[IoBuffer],
        length: u64,
    ) -> Attempt {
        let refused = Attempt::Partly(0);
        if buffers.len() > VECTORS_MAX {
            return refused;
        }
        match direction {
            Direction::Read if length > READ_MAX_BYTES => refused,
            Direction::Read if self.reads == Means::NoWait && !alone => refused,
            Direction::Read => self.read(image, offset, buffers, length),
            Direction::Write { .. } if length > WRITE_MAX_BYTES => refused,
            Direction::Write { durable } => {
                self.write(image, durable, direction, (offset, length), buffers)
            }
        }
    }

    fn read(&mut self, image: &Image, offset: u64, buffers: &[IoBuffer], length: u64) -> Attempt {
        let flags = match self.reads {
            Means::Never => return Attempt::Partly(0),
            Means::NoWait => libc::RWF_NOWAIT,
            Means::PageCache | Means::Memory => 0,
        };
        if self.misses >= MISSES_IN_A_ROW {
            self.misses = self.misses.saturating_add(1);
            if !self.misses.is_multiple_of(TRIED_OF) {
                return Attempt::Partly(0);
            }
        }
        let once = || transfer_once(&image.file, Direction::Read, offset, buffers, flags);
        match host::retry(once) {
            Ok(count) if covers(count, length) => {
                self.misses = 0;
                Attempt::Done
            }
            // The end of the file comes to whoever reads on.
            Ok(count) => Attempt::Partly(count),
            Err(error) => {
                match error.raw_os_error() {
                    Some(libc::EAGAIN) => self.misses = self.misses.saturating_add(1),
                    Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS) => {
                        self.reads = Means::Never;
                    }
                    _ => return Attempt::Failed(error),
                }
                Attempt::Partly(0)
            }
        }
    }

    fn write(
        &mut self,
        image: &Image,
        durable: bool,
        direction: Direction,
        (offset, length): (u64, u64),
        buffers: &[IoBuffer],
    ) -> Attempt {
        let started = match self.writes {
            Means::Memory => None,
            Means::PageCache if !durable && image.cache != CacheMode::DirectSync => {
                let now = Instant::now();
                if self.detour_until.is_some_and(|until| now < until) {
                    return Attempt::Partly(0);
                }
                Some(now)
            }
            Means::Never | Means::NoWait | Means::PageCache => return Attempt::Partly(0),
        };
        let once = || transfer_once(&image.file, direction, offset, buffers, 0);
        let result = host::retry(once);
        if let Some(started) = started {
            let now = Instant::now();
            self.note_write(now.duration_since(started), now);
        }
        match result {
            Ok(count) if covers(count, length) => Attempt::Done,
            Ok(count) => Attempt::Partly(count),
            Err(error) => Attempt::Failed(error),
        }
    }
}

impl Inline {
    /// A write through the page cache took `time` until `now`.
    fn note_write(&mut self, time: Duration, now: Instant) {
        self.held_up = match time >= HELD_UP {
            true => self.held_up.saturating_add(1),
            false => 0,
        };
        if self.held_up >= HELD_UP_IN_A_ROW {
            self.held_up = 0;
            self.detour_until = now.checked_add(DETOUR);
        }
    }
}

fn covers(count: usize, length: u64) -> bool {
    u64::try_from(count).is_ok_and(|count| count == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_take_a_detour_when_the_host_holds_several_up() {
        let mut inline = Inline::nothing();
        let now = Instant::now();
        for (milliseconds, detour) in [
            (5, false),
            (5, false),
            (0, false),
            (5, false),
            (5, false),
            (1, true),
        ] {
            inline.note_write(Duration::from_millis(milliseconds), now);
            assert_eq!(inline.detour_until.is_some(), detour);
        }
        assert_eq!(inline.detour_until, Some(now + DETOUR));
    }
}
