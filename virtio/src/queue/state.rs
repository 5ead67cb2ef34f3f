//! What a queue is made of, by its driver or by a saved state, and how far the device has come in it.

/// A queue as its driver has configured it, with the place where the device goes on: enough to make the same
/// queue again. The names of the areas are those of both kinds of ring (virtio 1.3, 2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueState {
    /// Largest size, in descriptors, as the device offers it.
    pub max_size: u16,
    /// Size in descriptors, as the driver chose it. A power of two for a split ring.
    pub size: u16,
    /// The driver uses the queue.
    pub ready: bool,
    /// Guest-physical address of the descriptor table, or of the packed ring.
    pub descriptor_area: u64,
    /// Guest-physical address of the available ring, or of the driver's event suppression.
    pub driver_area: u64,
    /// Guest-physical address of the used ring, or of the device's event suppression.
    pub device_area: u64,
    /// Where the device goes on; `None` in a queue at its start.
    pub progress: Option<Progress>,
}

/// How far the device has come in a ring.
///
/// Of a split ring these are the indices of 2.7.6 and 2.7.8, which count all chains modulo 2^16. Of a packed
/// one they are places in it: the descriptor's index in the bits 0 to 14, and the wrap counter (2.8.1) in
/// bit 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The next chain that the device takes.
    pub next_available: u16,
    /// Where the device puts the next used buffer.
    pub next_used: u16,
}

impl QueueState {
    /// A queue of at most `max_size` descriptors that no driver has configured.
    pub fn unused(max_size: u16) -> Self {
        Self {
            max_size,
            size: max_size,
            ..Self::default()
        }
    }
}

/// A chain's place in its ring, by which it is given back ([`Queue::add_used`](super::Queue::add_used)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Index of the first descriptor, or the buffer id of a packed ring.
    pub(super) id: u16,
    /// How many entries of the ring the chain takes: 1 in the available ring of a split one.
    pub(super) entries: u16,
}

impl Head {
    /// What the driver knows the chain by: the index of its first descriptor in a split ring, the buffer id
    /// in a packed one.
    pub fn id(self) -> u16 {
        self.id
    }
}
