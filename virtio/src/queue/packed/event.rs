//! Event suppression of packed rings (virtio 1.3, 2.8.10 and 2.8.14): which of the other side's steps one wants to hear
//! of. The driver's structure is read here, the device's is written.

use std::sync::atomic::{Ordering, fence};

use vm_memory::GuestAddress;

use super::position::Position;
use crate::GuestMemory;
use crate::queue::{QueueError, load, store};

/// Bytes of a structure, and what its address is a multiple of.
pub(super) const EVENT_BYTES: u64 = 4;

/// `RING_EVENT_FLAGS_*`: all events, none, that of one descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const DESC: u16 = 2;
/// The bits of the flags that mean something.
const FLAGS: u16 = 3;

/// What the driver wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Everything,
    Nothing,
    /// When the descriptor there is used: offset and wrap counter.
    At(u16),
}

/// Reads what the driver wants to hear of, after what it could see before.
pub(super) fn read_wish(
    memory: &GuestMemory,
    driver_area: u64,
    event_index: bool,
) -> Result<Wish, QueueError> {
    // Used descriptors must be visible before the wish is read (2.8.22): a driver writes its wish, then
    // looks at the ring.
    fence(Ordering::SeqCst);
    let both: u32 = load(memory, GuestAddress(driver_area), Ordering::Relaxed)?;
    let [a, b, c, d] = both.to_ne_bytes();
    let place = u16::from_le_bytes([a, b]);
    Ok(match u16::from_le_bytes([c, d]) & FLAGS {
        DISABLE => Wish::Nothing,
        DESC if event_index => Wish::At(place),
        // What is reserved, or was not negotiated, must not cost an interrupt.
        _ => Wish::Everything,
    })
}

/// Asks the driver for a doorbell: with the event index at the descriptor `next`, otherwise at any.
pub(super) fn ask_for_doorbell(
    memory: &GuestMemory,
    device_area: u64,
    next: Option<Position>,
) -> Result<(), QueueError> {
    match next {
        Some(next) => write(memory, device_area, next.to_bits(), DESC),
        None => write(memory, device_area, 0, ENABLE),
    }
}

/// Tells the driver that no doorbell is needed.
pub(super) fn refuse_doorbells(memory: &GuestMemory, device_area: u64) -> Result<(), QueueError> {
    write(memory, device_area, 0, DISABLE)
}

/// Both halves at once, so that the driver sees no place with the flags of another.
fn write(memory: &GuestMemory, device_area: u64, place: u16, flags: u16) -> Result<(), QueueError> {
    let [a, b] = place.to_le_bytes();
    let [c, d] = flags.to_le_bytes();
    let both = u32::from_ne_bytes([a, b, c, d]);
    store(memory, both, GuestAddress(device_area), Ordering::Release)
}
