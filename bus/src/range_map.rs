//! Address ranges that do not overlap, each with a value; found by binary search.

use std::fmt::{self, Debug};

/// Why a range could not be added to a [`RangeMap`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeMapError {
    /// The range has no address in it, or its end is beyond the address space.
    #[error("the range of {length:#x} bytes at {start:#x} is empty or leaves the address space")]
    Invalid {
        /// First address of the refused range.
        start: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// Another range has some of the same addresses.
    #[error("{start:#x}..={last:#x} overlaps {other_start:#x}..={other_last:#x}")]
    Overlap {
        /// First address of the refused range.
        start: u64,
        /// Its last address.
        last: u64,
        /// First address of the range that is already there.
        other_start: u64,
        /// Its last address.
        other_last: u64,
    },
}

/// A sorted map from address ranges to values.
#[derive(Clone)]
pub struct RangeMap<T> {
    entries: Vec<Entry<T>>,
}

#[derive(Clone)]
struct Entry<T> {
    start: u64,
    last: u64,
    value: T,
}

impl<T> RangeMap<T> {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    /// Adds `value` for the `length` addresses from `start`.
    ///
    /// # Errors
    ///
    /// [`RangeMapError`] when the range is empty, leaves the address space or overlaps another; the
    /// map is then unchanged.
    pub fn insert(&mut self, start: u64, length: u64, value: T) -> Result<(), RangeMapError> {
        let last = length
            .checked_sub(1)
            .and_then(|distance| start.checked_add(distance))
            .ok_or(RangeMapError::Invalid { start, length })?;
        let position = self.entries.partition_point(|entry| entry.last < start);
        if let Some(other) = self.entries.get(position)
            && other.start <= last
        {
            return Err(RangeMapError::Overlap {
                start,
                last,
                other_start: other.start,
                other_last: other.last,
            });
        }
        self.entries.insert(position, Entry { start, last, value });
        Ok(())
    }

    /// Takes the range that begins at `start` out, and gives its value.
    pub fn remove(&mut self, start: u64) -> Option<T> {
        let position = self
            .entries
            .binary_search_by_key(&start, |entry| entry.start)
            .ok()?;
        Some(self.entries.remove(position).value)
    }

    /// The value whose range holds all of the `length` addresses from `address`, and the offset of
    /// `address` in that range. O(log n).
    pub fn find(&self, address: u64, length: u64) -> Option<(&T, u64)> {
        let position = self.entries.partition_point(|entry| entry.last < address);
        let entry = self.entries.get(position)?;
        let offset = address.checked_sub(entry.start)?;
        let last = address.checked_add(length.checked_sub(1)?)?;
        (last <= entry.last).then_some((&entry.value, offset))
    }

    /// All ranges in ascending order: first address, last address, value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64, &T)> {
        self.entries
            .iter()
            .map(|entry| (entry.start, entry.last, &entry.value))
    }
}

impl<T> Default for RangeMap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Debug for RangeMap<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(
                self.iter()
                    .map(|(start, last, _)| format!("{start:#x}..={last:#x}")),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests;
