//! What a driver can do wrong with a ring.

/// A rule of the split virtqueue that the driver broke.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// What `virtio-queue` finds: size, alignment, an available index that jumped.
    #[error("{0}")]
    Ring(virtio_queue::Error),
    /// Descriptor table, available or used ring are not within memory.
    #[error("the ring is outside of memory")]
    RingOutsideMemory,
    /// A head in the available ring is not within the descriptor table (virtio 1.3, 2.7.6).
    #[error("head {head} is not within the {size} descriptors")]
    HeadOutOfRange {
        /// The head.
        head: u16,
        /// Size of the table in descriptors.
        size: u32,
    },
    /// `next` of a descriptor is not within its table (2.7.5).
    #[error("a descriptor's next, {next}, is not within the {size} descriptors")]
    NextOutOfRange {
        /// The index that `next` gave.
        next: u16,
        /// Size of the table in descriptors.
        size: u32,
    },
    /// A chain has more descriptors than the queue (2.7.5.3.1), most likely because it has a loop.
    #[error("a chain is longer than {longest} descriptors, or a loop")]
    TooLong {
        /// The longest chain that is taken.
        longest: u16,
    },
    /// A chain has more than 2^32 bytes (2.7.5.2).
    #[error("a chain has more than 2^32 bytes")]
    TooManyBytes,
    /// A descriptor of no bytes.
    #[error("a descriptor has no bytes")]
    EmptyDescriptor,
    /// A device-readable descriptor follows a device-writable one (2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    ReadableAfterWritable,
    /// A buffer, or a table of descriptors, is not within memory.
    #[error("{length} bytes at {address:#x} are outside of memory")]
    OutsideMemory {
        /// Guest-physical address.
        address: u64,
        /// Length in bytes.
        length: u64,
    },
    /// An indirect descriptor without VIRTIO_F_INDIRECT_DESC (2.7.5.3.1).
    #[error("an indirect descriptor, which was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor inside an indirect table (2.7.5.3.1).
    #[error("an indirect descriptor inside an indirect table")]
    IndirectNested,
    /// An indirect descriptor with VIRTQ_DESC_F_NEXT (2.7.5.3.1).
    #[error("an indirect descriptor with a next one")]
    IndirectWithNext,
    /// An indirect table that is empty or is no whole number of descriptors (2.7.5.3.2).
    #[error("an indirect table of {length} bytes")]
    IndirectTableSize {
        /// Its length in bytes.
        length: u32,
    },
    /// An error came before; the ring is not looked at until the device is reset.
    #[error("the queue is unusable until the device is reset")]
    Unusable,
}
