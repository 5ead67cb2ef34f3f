//! A place in a packed ring: a descriptor, and which time round (virtio 1.3, 2.8.1).

/// Bit of the wrap counter, in event suppression structures (2.8.14) and in saved states.
const WRAP: u16 = 1 << 15;

/// A place in a ring of `size` descriptors. What takes a size wants the ring's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Index of the descriptor, below the size.
    pub index: u16,
    /// The wrap counter there; it begins with 1.
    pub wrap: bool,
}

impl Position {
    pub(super) const START: Self = Self {
        index: 0,
        wrap: true,
    };

    /// The place that `bits` name, if the ring has it.
    pub(super) fn from_bits(bits: u16, size: u16) -> Option<Self> {
        let index = bits & !WRAP;
        (index < size).then_some(Self {
            index,
            wrap: bits & WRAP != 0,
        })
    }

    pub(super) fn to_bits(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// The place `count` descriptors further on; `count` is at most the size.
    pub(super) fn after(self, count: u16, size: u16) -> Self {
        let index = u32::from(self.index).saturating_add(u32::from(count));
        match index.checked_sub(u32::from(size)) {
            None => Self {
                index: u16::try_from(index).unwrap_or(0),
                wrap: self.wrap,
            },
            Some(index) => Self {
                index: u16::try_from(index).unwrap_or(0),
                wrap: !self.wrap,
            },
        }
    }

    /// The place `count` descriptors back; `count` is at most the size.
    pub(super) fn before(self, count: u16, size: u16) -> Self {
        match self.index.checked_sub(count) {
            Some(index) => Self { index, ..self },
            None => Self {
                index: size.saturating_sub(count).saturating_add(self.index),
                wrap: !self.wrap,
            },
        }
    }

    /// How many descriptors `to` is further on: below twice the size, after which both come again.
    pub(super) fn distance(self, to: Self, size: u16) -> u32 {
        let round = u32::from(size).saturating_mul(2);
        let ahead = to.number(size).saturating_add(round);
        ahead
            .saturating_sub(self.number(size))
            .checked_rem(round)
            .unwrap_or(0)
    }

    /// Places numbered over both times round.
    fn number(self, size: u16) -> u32 {
        let first = if self.wrap { 0 } else { u32::from(size) };
        first.saturating_add(u32::from(self.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_come_again_after_two_rounds(
            (size, index, count) in (1_u16..=0x8000)
                .prop_flat_map(|size| (Just(size), 0..size, 0..=size)),
            wrap: bool,
        ) {
            let position = Position { index, wrap };
            let ahead = position.after(count, size);
            prop_assert!(ahead.index < size);
            prop_assert_eq!(ahead.before(count, size), position);
            prop_assert_eq!(position.distance(ahead, size), u32::from(count));
            prop_assert_eq!(position.after(size, size).after(size, size), position);
            prop_assert_eq!(Position::from_bits(position.to_bits(), size), Some(position));
            prop_assert_eq!(Position::from_bits(position.to_bits(), index), None);
        }
    }
}
