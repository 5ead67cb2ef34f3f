//! Requests to a disk, and their completions.

use std::io;

use crate::IoError;
use crate::buffer::{IoBuffer, Rest};

/// One request. Positions count in sectors, lengths in bytes, whole sectors of them.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// Reads into the buffers, from this sector on.
    Read {
        /// First sector.
        sector: u64,
        /// Where the bytes go.
        buffers: &'a [IoBuffer],
    },
    /// Writes the buffers, from this sector on.
    Write {
        /// First sector.
        sector: u64,
        /// Where the bytes come from.
        buffers: &'a [IoBuffer],
        /// Complete only when it is on the medium.
        durable: bool,
    },
    /// Completes when all that completed before it was submitted is on the medium.
    Flush,
    /// The sectors are not needed any more; what they read as is undefined.
    Discard {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        length_bytes: u64,
    },
    /// The sectors read as zeros.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// Length in bytes.
        length_bytes: u64,
        /// The host may give their space back.
        may_unmap: bool,
        /// Complete only when it is on the medium.
        durable: bool,
    },
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// The tag with which it was submitted.
    pub tag: u64,
    /// Whether it was done, whole.
    pub result: Result<(), IoError>,
}

/// A request that was found possible, with what is left to do of it.
#[derive(Debug)]
pub(crate) struct Job {
    pub tag: u64,
    pub work: Work,
    /// Where in the image's file the bytes of a transfer are, while that is held for the job
    /// ([`Qcow2Image::hold`](crate::qcow2::Qcow2Image::hold)). A raw disk has them at their own offset.
    pub place: Option<u64>,
    /// The buffers of a transfer; its memory is used again by another request.
    pub rest: Rest,
}

/// What a job does. Positions are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Transfer {
        direction: Direction,
        offset: u64,
    },
    Flush,
    Discard {
        offset: u64,
        length: u64,
    },
    WriteZeroes {
        offset: u64,
        length: u64,
        may_unmap: bool,
        durable: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write { durable: bool },
}

impl Direction {
    /// What it means when a transfer ends before its end: a file that was made shorter, or a device
    /// that went away.
    pub(crate) fn cut_short(self) -> io::Error {
        match self {
            Self::Read => io::ErrorKind::UnexpectedEof.into(),
            Self::Write { .. } => io::ErrorKind::WriteZero.into(),
        }
    }
}

impl Job {
    /// Takes off what has been transferred.
    pub(crate) fn advance(&mut self, count: usize) {
        self.rest.advance(count);
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        if let Work::Transfer { offset, .. } = &mut self.work {
            *offset = offset.saturating_add(count);
        }
        if let Some(place) = &mut self.place {
            *place = place.saturating_add(count);
        }
    }
}

impl Work {
    /// Whether its completion says that something is on the disk.
    pub(crate) fn is_to_be_durable(&self) -> bool {
        match *self {
            Self::Flush => true,
            Self::Transfer { direction, .. } => direction == Direction::Write { durable: true },
            Self::WriteZeroes { durable, .. } => durable,
            Self::Discard { .. } => false,
        }
    }

    /// What it is, and where, for a line of log.
    pub(crate) fn describe(&self) -> (&'static str, Option<u64>) {
        match *self {
            Self::Transfer {
                direction: Direction::Read,
                offset,
            } => ("read", Some(offset)),
            Self::Transfer { offset, .. } => ("write", Some(offset)),
            Self::Flush => ("flush", None),
            Self::Discard { offset, .. } => ("discard", Some(offset)),
            Self::WriteZeroes { offset, .. } => ("write zeroes", Some(offset)),
        }
    }
}
