//! The file of an image, as what looks after images reads and writes it: tables of 64-bit entries, piece by
//! piece, without what the file system has no blocks for. So the time that a table takes is bounded by
//! what the file takes on the host's disk, whatever a header claims.
//!
//! Through the page cache, on whatever thread looks after an image.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::host;

/// Bytes of a table that are in memory at a time.
const PIECE_BYTES: u64 = 64 << 10;
/// A host that crashed may have lost so much of a file's end, or as much as it has left: what was written
/// since the last flush.
const GROWTH_BYTES: u64 = 1 << 30;
/// Bytes of an entry.
const ENTRY_BYTES: u64 = 8;

/// A file with a size.
#[derive(Debug)]
pub(super) struct Medium<'a> {
    file: &'a File,
    pub bytes: u64,
    /// To where it could be made longer.
    pub bytes_max: u64,
}

impl<'a> Medium<'a> {
    pub(super) fn new(file: &'a File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let bytes = host::size_bytes(file, &metadata)?;
        let bytes_max = match metadata.is_file() {
            true => bytes.saturating_add(bytes.max(GROWTH_BYTES)),
            false => bytes,
        };
        Ok(Self {
            file,
            bytes,
            bytes_max,
        })
    }

    /// Reads; what is behind the end of the file is zero.
    pub(super) fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let place = at.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            // Behind what a file can have there is nothing either.
            if i64::try_from(place).is_err() {
                rest.fill(0);
                break;
            }
            match host::retry(|| self.file.read_at(rest, place))? {
                0 => {
                    rest.fill(0);
                    break;
                }
                count => done = done.saturating_add(count),
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// All that was written is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        host::sync_data(self.file)
    }

    /// Where the file has something next, from `at` on; `None` where only zeros follow.
    fn next_data(&self, at: u64) -> Option<u64> {
        let offset = libc::off64_t::try_from(at).ok()?;
        // SAFETY: the file is open, and nobody uses its position.
        let found = unsafe { libc::lseek64(self.file.as_raw_fd(), offset, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(data) => Some(data),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
            // A host that does not say.
            Err(_) => Some(at),
        }
    }

    /// Calls `visit` with the index and the value of each entry of a table that is not zero.
    pub(super) fn for_each_entry(
        &self,
        at: u64,
        entries: u64,
        mut visit: impl FnMut(u64, u64),
    ) -> io::Result<()> {
        self.change_entries(at, entries, |index, entry| {
            visit(index, entry);
            entry
        })
    }

    /// As [`for_each_entry`](Self::for_each_entry), and writes what `change` returns in the entry's place.
    pub(super) fn change_entries(
        &self,
        at: u64,
        entries: u64,
        mut change: impl FnMut(u64, u64) -> u64,
    ) -> io::Result<()> {
        let length = entries.saturating_mul(ENTRY_BYTES);
        let mut buffer = vec![0; usize::try_from(length.min(PIECE_BYTES)).unwrap_or(0)];
        let mut done = 0;
        while done < length {
            let piece_bytes = length.saturating_sub(done).min(PIECE_BYTES);
            let place = at.saturating_add(done);
            let Some(data) = self.next_data(place) else {
                break;
            };
            if data >= place.saturating_add(piece_bytes) {
                // Pieces begin where pieces begin.
                let hole = data.saturating_sub(place);
                let whole = hole.saturating_sub(hole.wrapping_rem(PIECE_BYTES));
                done = done.saturating_add(whole.max(piece_bytes));
                continue;
            }
            let size = usize::try_from(piece_bytes).unwrap_or(0);
            if let Some(piece) = buffer.get_mut(..size) {
                self.read(place, piece)?;
                let mut is_changed = false;
                let first = done.wrapping_div(ENTRY_BYTES);
                for (index, bytes) in (first..).zip(piece.as_chunks_mut::<8>().0) {
                    let before = u64::from_be_bytes(*bytes);
                    if before == 0 {
                        continue;
                    }
                    let after = change(index, before);
                    if after != before {
                        *bytes = after.to_be_bytes();
                        is_changed = true;
                    }
                }
                if is_changed {
                    self.write(place, piece)?;
                }
            }
            done = done.saturating_add(piece_bytes);
        }
        Ok(())
    }
}
