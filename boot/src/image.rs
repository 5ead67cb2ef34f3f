//! Lays the bytes of an ELF image over its segments in guest memory.
//!
//! The image comes in pieces, from a file or a decoder, in any order and from several threads. Pages that
//! are all zero are not written: the memory is fresh, so they hold zeros already, and a page that is not
//! touched costs neither time nor memory. Kernels have many (a quarter of Debian's is `.bss` and `.brk`,
//! zeros in the file).
//!
//! Decoding into a buffer and copying from there is not slower than decoding into guest memory (measured,
//! LZ4 and plain: the zero pages make up for the copy), and so no reference into guest memory is needed.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::GuestMemory;
use crate::elf::{self, ElfError, ElfImage};

const PAGE_BYTES: usize = 4096;
const ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// An ELF image on its way into memory. Shared by the threads that decode it.
#[derive(Debug)]
pub(crate) struct ImageLayout<'a> {
    memory: &'a GuestMemory,
    elf: ElfImage,
    /// The contents of each of `elf.notes`, collected while they go by.
    notes: Mutex<Vec<Vec<u8>>>,
}

impl<'a> ImageLayout<'a> {
    /// The caller has checked that the segments lie in RAM.
    pub fn new(memory: &'a GuestMemory, elf: ElfImage) -> Self {
        let notes = elf
            .notes
            .iter()
            .map(|segment| vec![0; length_of(&segment.file)])
            .collect();
        Self {
            memory,
            elf,
            notes: Mutex::new(notes),
        }
    }

    /// Puts `bytes`, which are at `offset` in the image, where they belong.
    pub fn place(&self, offset: u64, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let piece = offset..offset.saturating_add(length);
        for segment in &self.elf.segments {
            let Some(common) = intersection(&piece, &segment.file) else {
                continue;
            };
            let address = common
                .start
                .saturating_sub(segment.file.start)
                .saturating_add(segment.address);
            let part = part_of(bytes, offset, &common);
            write_fresh(self.memory, GuestAddress(address), part)?;
        }
        for (index, note) in self.elf.notes.iter().enumerate() {
            let Some(common) = intersection(&piece, &note.file) else {
                continue;
            };
            let mut contents = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
            let to = contents
                .get_mut(index)
                .and_then(|content| content.get_mut(index_range(&common, note.file.start)));
            if let Some(to) = to {
                to.copy_from_slice(part_of(bytes, offset, &common));
            }
        }
        Ok(())
    }

    /// The headers of the image, and its PVH entry when it has one. To be called when all is placed.
    pub fn finish(self) -> Result<(ElfImage, Option<u32>), ElfError> {
        let contents = self
            .notes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut entry = None;
        for (segment, content) in self.elf.notes.iter().zip(&contents) {
            entry = entry.or(elf::pvh_entry(segment, content)?);
        }
        Ok((self.elf, entry))
    }
}

/// The bytes of `range` when all of them are in `head`, the first bytes of an image.
pub(crate) fn bytes_at<'b>(head: &'b [u8], range: &Range<u64>) -> Option<&'b [u8]> {
    head.get(index_range(range, 0))
}

/// Writes `bytes` into memory that holds zeros, leaving out those pages of them that are all zero.
pub(crate) fn write_fresh(
    memory: &GuestMemory,
    address: GuestAddress,
    bytes: &[u8],
) -> Result<(), GuestMemoryError> {
    let mut rest = bytes;
    let mut at = address.0;
    while !rest.is_empty() {
        let (zeros, data) = rest.split_at(run_bytes(rest, true));
        let (data, after) = data.split_at(run_bytes(data, false));
        at = at.saturating_add(u64::try_from(zeros.len()).unwrap_or(u64::MAX));
        if !data.is_empty() {
            memory.write_slice(data, GuestAddress(at))?;
        }
        at = at.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        rest = after;
    }
    Ok(())
}

/// How many bytes at the start of `bytes` are pages that are all zero, or pages that are not.
fn run_bytes(bytes: &[u8], zero: bool) -> usize {
    bytes
        .chunks(PAGE_BYTES)
        .take_while(|page| (ZERO_PAGE.get(..page.len()) == Some(*page)) == zero)
        .map(<[u8]>::len)
        .sum()
}

fn intersection(one: &Range<u64>, other: &Range<u64>) -> Option<Range<u64>> {
    let common = one.start.max(other.start)..one.end.min(other.end);
    (!common.is_empty()).then_some(common)
}

/// The part of `bytes`, which start at `offset`, that is in `range`.
fn part_of<'b>(bytes: &'b [u8], offset: u64, range: &Range<u64>) -> &'b [u8] {
    bytes.get(index_range(range, offset)).unwrap_or_default()
}

fn index_range(range: &Range<u64>, origin: u64) -> Range<usize> {
    let index = |at: u64| usize::try_from(at.saturating_sub(origin)).unwrap_or(usize::MAX);
    index(range.start)..index(range.end)
}

fn length_of(range: &Range<u64>) -> usize {
    index_range(range, range.start).end
}

#[cfg(test)]
mod tests;
