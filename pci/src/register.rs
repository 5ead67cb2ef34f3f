//! Registers of a configuration space that are kept by somebody else than the space: by whoever acts on
//! them, so that there is one place to look.

/// Two bytes of a configuration space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register16 {
    /// Offset of the low byte.
    pub offset: u8,
}

impl Register16 {
    /// Adds `value` to what a read of `data` from `offset` on found in the configuration space.
    pub(crate) fn show(self, value: u16, offset: u16, data: &mut [u8]) {
        for (place, byte) in (offset..).zip(data) {
            *byte |= self.part(value, place);
        }
    }

    /// What a write of `data` at `offset` makes of `value`: `None` when it is about other registers.
    pub(crate) fn written(self, value: u16, offset: u16, data: &[u8]) -> Option<u16> {
        let mut bytes = value.to_le_bytes();
        let mut touched = false;
        for (place, register) in (u16::from(self.offset)..).zip(&mut bytes) {
            let index = place.checked_sub(offset);
            if let Some(byte) = index.and_then(|index| data.get(usize::from(index))) {
                *register = *byte;
                touched = true;
            }
        }
        touched.then_some(u16::from_le_bytes(bytes))
    }

    fn part(self, value: u16, place: u16) -> u8 {
        let [low, high] = value.to_le_bytes();
        match place.checked_sub(u16::from(self.offset)) {
            Some(0) => low,
            Some(1) => high,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: Register16 = Register16 { offset: 0x42 };

    #[test]
    fn a_read_shows_the_bytes_that_it_covers() {
        for (offset, expected) in [
            (0x40, [0, 0, 0x34, 0x12]),
            (0x41, [0, 0x34, 0x12, 0]),
            (0x43, [0x12, 0, 0, 0]),
            (0x44, [0; 4]),
        ] {
            let mut data = [0; 4];
            REGISTER.show(0x1234, offset, &mut data);
            assert_eq!(data, expected, "{offset:#x}");
        }
    }

    #[test]
    fn a_write_changes_the_bytes_that_it_covers() {
        let written = |offset, data: &[u8]| REGISTER.written(0x1234, offset, data);
        assert_eq!(written(0x40, &[1, 2, 3, 4]), Some(0x0403));
        assert_eq!(written(0x42, &[9]), Some(0x1209));
        assert_eq!(written(0x43, &[9]), Some(0x0934));
        assert_eq!(written(0x40, &[1, 2]), None);
        assert_eq!(written(0x44, &[1]), None);
    }
}
