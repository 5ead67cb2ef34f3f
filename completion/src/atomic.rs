//! Read-modify-write of guest memory in one step, as other vCPUs see it (Intel SDM volume 3, 10.1).
//!
//! A host's compare-exchange of the 8 or 16 aligned bytes around the operand does it, whatever the operand's
//! size and alignment. What crosses 16 bytes has no such, and a device has none at all: those go one at a
//! time.

use crate::memory::{
    GuestMemory, Piece, compare_exchange_8, compare_exchange_16, one_at_a_time, read_pieces,
    write_pieces,
};
use crate::word::{at, from_le, low_32, mask};

/// How often an operand is tried that others change without pause.
const TRIES: usize = 1000;

/// Replaces the number of `bytes` (1, 2, 4 or 8) at `pieces` by what `change` makes of it, and gives what it
/// was. `change` may be asked more than once.
pub fn update(
    memory: &mut dyn GuestMemory,
    pieces: &[Piece],
    bytes: usize,
    change: impl Fn(u64) -> u64,
) -> u64 {
    if let [piece] = pieces
        && let Some(found) = update_ram(memory, piece.physical, bytes, &change)
    {
        return found;
    }
    one_at_a_time(|| {
        let mut data = [0; 8];
        let data = data.get_mut(..bytes).unwrap_or_default();
        read_pieces(memory, pieces, data);
        let found = from_le(data);
        let changed = change(found).to_le_bytes();
        write_pieces(memory, pieces, 0, changed.get(..bytes).unwrap_or_default());
        found
    })
}

/// None when it is not RAM, crosses 16 bytes, or is changed by others without pause.
fn update_ram(
    memory: &dyn GuestMemory,
    address: u64,
    bytes: usize,
    change: &dyn Fn(u64) -> u64,
) -> Option<u64> {
    let in_8 = address & 7;
    let narrow = in_8.saturating_add(crate::word::length(bytes)) <= 8;
    let (start, width) = if narrow {
        (address & !7, 8)
    } else {
        (address & !15, 16)
    };
    let shift = low_32(address.wrapping_sub(start)).wrapping_mul(8);
    if shift.saturating_add(crate::word::bits(bytes)) > 128 {
        return None;
    }
    let field = u128::from(mask(bytes)).wrapping_shl(shift);
    let exchange = |old: u128, new: u128| match width {
        8 => compare_exchange_8(memory, start, low(old), low(new)).map(u128::from),
        _ => compare_exchange_16(memory, start, old, new),
    };
    let mut seen = exchange(0, 0)?;
    for _ in 0..TRIES {
        let found = low((seen & field).wrapping_shr(shift));
        let changed = u128::from(change(found)).wrapping_shl(shift);
        let now = exchange(seen, seen & !field | changed & field)?;
        if now == seen {
            return Some(found);
        }
        seen = now;
    }
    None
}

/// The low quad word.
fn low(value: u128) -> u64 {
    u64::from_le_bytes(at(&value.to_le_bytes(), 0))
}

#[cfg(test)]
mod tests;
