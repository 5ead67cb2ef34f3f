//! Bytes from the guest that wait for a host that does not read: a ring of a fixed size, which takes no
//! memory before it is needed.

use crate::queue::Buffers;

/// A ring of at most `capacity` bytes.
#[derive(Debug)]
pub(super) struct ByteRing {
    bytes: Box<[u8]>,
    capacity: usize,
    start: usize,
    length: usize,
}

impl ByteRing {
    /// An empty ring.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: Box::default(),
            capacity,
            start: 0,
            length: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds what has room of `buffers`; returns how much that was.
    pub(super) fn append(&mut self, buffers: Buffers<'_>) -> usize {
        if self.bytes.is_empty() && !buffers.is_empty() {
            // Zeroed memory comes from the host page by page as it is written.
            self.bytes = vec![0; self.capacity].into_boxed_slice();
        }
        let mut rest = buffers;
        let mut added = 0_usize;
        // The room is in one piece or two.
        for _ in 0..2 {
            let room = self.room();
            let count = room
                .len()
                .min(usize::try_from(rest.len()).unwrap_or(usize::MAX));
            let Some((first, others)) = rest.split_at(u64::try_from(count).unwrap_or(0)) else {
                break;
            };
            let copied = first.copy_to(room);
            self.length = self.length.saturating_add(copied);
            added = added.saturating_add(copied);
            rest = others;
        }
        added
    }

    /// The first bytes, as many as are in one piece.
    pub(super) fn front(&self) -> &[u8] {
        let end = self.start.saturating_add(self.length).min(self.bytes.len());
        self.bytes.get(self.start..end).unwrap_or_default()
    }

    /// Drops the first `count` bytes, which are there.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.length);
        self.length = self.length.saturating_sub(count);
        self.start = self.start.saturating_add(count);
        if self.start >= self.bytes.len() {
            self.start = self.start.saturating_sub(self.bytes.len());
        }
        if self.length == 0 {
            self.start = 0;
        }
    }

    /// Drops all bytes and the memory.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// The room behind the last byte, as much as is in one piece.
    fn room(&mut self) -> &mut [u8] {
        let size = self.bytes.len();
        let free = size.saturating_sub(self.length);
        let end = self.start.saturating_add(self.length);
        let from = if end >= size {
            end.saturating_sub(size)
        } else {
            end
        };
        let to = from.saturating_add(free).min(size);
        self.bytes.get_mut(from..to).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
