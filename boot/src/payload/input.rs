//! A range of a file as a decoder's input, which remembers how far it got and how the host failed: decoders
//! do not tell their own errors from those of their input.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{Compression, PayloadError};
use crate::bzimage::{Payload, SIZE_BYTES};

/// Reads a file by offset; the file's own position is not used.
#[derive(Debug)]
pub(super) struct Input<'a> {
    file: &'a File,
    progress: &'a Progress,
    end: u64,
}

/// What remains to be asked when a decoder has the input.
#[derive(Debug)]
pub(super) struct Progress {
    position: Cell<u64>,
    failure: RefCell<Option<io::Error>>,
}

impl Progress {
    pub fn new(start: u64) -> Self {
        Self {
            position: Cell::new(start),
            failure: RefCell::new(None),
        }
    }

    /// Why a decoder gave up: what the host said, or else that the data are bad.
    pub fn explain(&self, compression: Compression, error: &io::Error) -> PayloadError {
        let offset = self.position.get();
        match self.failure.take() {
            Some(error) => PayloadError::Read { offset, error },
            None => corrupt(compression, offset, error),
        }
    }

    pub fn position(&self) -> u64 {
        self.position.get()
    }
}

impl<'a> Input<'a> {
    pub fn new(file: &'a File, range: &Range<u64>, progress: &'a Progress) -> Self {
        Self {
            file,
            progress,
            end: range.end,
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let position = self.progress.position.get();
        let left = usize::try_from(self.end.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = buffer.len().min(left);
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        let read = self.file.read_at(buffer, position).map_err(|error| {
            let again = io::Error::from(error.kind());
            if error.kind() != io::ErrorKind::Interrupted {
                self.progress.failure.replace(Some(error));
            }
            again
        })?;
        let advanced = position.saturating_add(u64::try_from(read).unwrap_or(0));
        self.progress.position.set(advanced);
        Ok(read)
    }
}

/// The payload's range without the size that Linux's build appended.
pub(super) fn without_size(payload: &Payload) -> Range<u64> {
    payload.file.start..payload.file.end.saturating_sub(SIZE_BYTES)
}

pub(super) fn corrupt(
    compression: Compression,
    offset: u64,
    detail: impl std::fmt::Display,
) -> PayloadError {
    PayloadError::Corrupt {
        compression,
        offset,
        detail: detail.to_string(),
    }
}

/// Fills `buffer` from `file` at `offset`.
pub(super) fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), PayloadError> {
    file.read_exact_at(buffer, offset)
        .map_err(|error| PayloadError::Read { offset, error })
}
