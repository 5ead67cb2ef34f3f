//! What a driver can do wrong with a ring.

/// A rule of the virtqueue that the driver broke.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// What `virtio-queue` finds: size, alignment, an available index that jumped.
    #[error("{0}")]
    Ring(virtio_queue::Error),
    /// A packed ring that is empty, or larger than the device offered (virtio 1.3, 2.8).
    #[error("a ring of {size} descriptors")]
    Size {
        /// Its size in descriptors.
        size: u16,
    },
    /// A part of a packed ring is not where its kind has to be (2.8.10.1).
    #[error("a part of the ring at {address:#x}, which is no multiple of {alignment}")]
    Misaligned {
        /// Guest-physical address.
        address: u64,
        /// What it has to be a multiple of.
        alignment: u64,
    },
    /// A state goes on where a packed ring has no descriptor, or with more than all of them in use.
    #[error("the ring has no place {place:#x} to go on at")]
    NoSuchPlace {
        /// Index and wrap counter.
        place: u16,
    },
    /// A chain of a packed ring takes descriptors that the device has not given back, or more than there
    /// are (2.8.5).
    #[error("more than the ring's {size} descriptors are under way")]
    Overrun {
        /// Size of the ring in descriptors.
        size: u16,
    },
    /// A chain is given back to a packed ring from which it was not taken.
    #[error("buffer {id} was not taken from the ring")]
    NotTaken {
        /// The buffer id.
        id: u16,
    },
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
    /// An indirect descriptor with VIRTQ_DESC_F_NEXT (2.7.5.3.1), in a packed ring also behind one that has it
    /// (2.8.19).
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
