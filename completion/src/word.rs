//! Integers of the sizes that instructions have: 1, 2, 4 and 8 bytes in the low end of a `u64`.

/// The bits that an operand of `bytes` has.
pub const fn mask(bytes: usize) -> u64 {
    match bytes {
        0 => 0,
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Whether the sign bit of an operand of `bytes` is set.
pub const fn is_negative(value: u64, bytes: usize) -> bool {
    value & mask(bytes) & !(mask(bytes) >> 1) != 0
}

/// How many bits an operand of `bytes` has.
pub const fn bits(bytes: usize) -> u32 {
    mask(bytes).count_ones()
}

/// The low byte.
pub const fn low_8(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

/// The low half of the low double word.
pub const fn low_16(value: u64) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// The low double word.
pub const fn low_32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The high double word.
pub const fn high_32(value: u64) -> u32 {
    low_32(value >> 32)
}

/// A number from at most eight little-endian bytes.
pub fn from_le(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(at(bytes, 0))
}

/// The `N` bytes of `bytes` from `offset`; zeros beyond its end.
pub fn at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let rest = bytes.get(offset..).unwrap_or_default();
    if let Some(all) = rest.first_chunk() {
        return *all;
    }
    let mut all = [0; N];
    put(&mut all, 0, rest);
    all
}

/// Puts `from` into `bytes` at `offset`, as far as there is room.
pub fn put(bytes: &mut [u8], offset: usize, from: &[u8]) {
    let room = bytes.get_mut(offset..).unwrap_or_default();
    let count = room.len().min(from.len());
    if let (Some(to), Some(from)) = (room.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
}

/// A length or an offset as an address is counted.
pub fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A number that is known to be small, as an index.
pub fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
