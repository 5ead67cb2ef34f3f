//! Buffer space of the two sides of a connection (virtio 1.3, 5.10.6.3). All counts are modulo 2^32.

use super::packet::Header;

/// Bytes from the guest that a connection holds for a host that does not read: what the guest is told.
pub(super) const BUFFER_BYTES: u32 = 256 * 1024;
/// So much room that the guest does not know of is worth a packet of its own. Less than what a guest always
/// has left with it is the largest packet of Linux's driver, 64 KiB.
const UPDATE_AFTER_BYTES: u32 = BUFFER_BYTES / 4;

/// What the guest may be sent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SendCredit {
    sent: u32,
    buffer_bytes: u32,
    forwarded: u32,
}

impl SendCredit {
    /// Takes what the guest says of its buffer, as each of its packets does. Returns whether more has left
    /// the buffer.
    pub(super) const fn update(&mut self, header: &Header) -> bool {
        let progress = self.forwarded != header.forwarded_bytes;
        self.buffer_bytes = header.buffer_bytes;
        self.forwarded = header.forwarded_bytes;
        progress
    }

    /// Bytes that have room. None where the guest says that more has left its buffer than was sent.
    pub(super) const fn free(&self) -> u32 {
        let under_way = self.sent.wrapping_sub(self.forwarded);
        self.buffer_bytes.saturating_sub(under_way)
    }

    /// `bytes` were sent, not more than there is room for.
    pub(super) const fn note_sent(&mut self, bytes: u32) {
        self.sent = self.sent.wrapping_add(bytes);
    }
}

/// What the guest may send.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReceiveCredit {
    received: u32,
    forwarded: u32,
    told: u32,
}

impl ReceiveCredit {
    /// Bytes that were received and have not left the buffer.
    pub(super) const fn buffered(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Takes `bytes`, if the guest may send them.
    pub(super) const fn take(&mut self, bytes: u32) -> bool {
        let has_room = bytes <= BUFFER_BYTES.saturating_sub(self.buffered());
        if has_room {
            self.received = self.received.wrapping_add(bytes);
        }
        has_room
    }

    /// `bytes` have left the buffer; never more than were in it.
    pub(super) fn note_forwarded(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes.min(self.buffered()));
    }

    /// Whether the guest should hear of the room that there is.
    pub(super) const fn is_worth_telling(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= UPDATE_AFTER_BYTES
    }

    /// Writes into a packet to the guest what there is.
    pub(super) const fn tell(&mut self, header: &mut Header) {
        self.told = self.forwarded;
        header.buffer_bytes = BUFFER_BYTES;
        header.forwarded_bytes = self.forwarded;
    }
}

#[cfg(test)]
mod tests;
