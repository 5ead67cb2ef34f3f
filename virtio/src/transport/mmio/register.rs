//! The registers of virtio over MMIO, version 2 (virtio 1.3, 4.2.2, table 4.1).

/// Makes the enumeration of the registers and the function that finds one by its offset.
macro_rules! registers {
    ($($(#[$attribute:meta])* $offset:literal $name:ident,)*) => {
        /// A 32-bit register, named as the specification names it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Register {
            $($(#[$attribute])* $name,)*
        }

        impl Register {
            /// The register at `offset` bytes from the start of the device's range.
            pub(super) fn at(offset: u64) -> Option<Self> {
                match offset {
                    $($offset => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Where the register is.
            #[cfg(test)]
            pub(super) fn offset(self) -> u64 {
                match self {
                    $(Self::$name => $offset,)*
                }
            }
        }
    };
}

registers! {
    /// R. "virt", little endian.
    0x000 MagicValue,
    /// R. 2; 1 would be the legacy interface.
    0x004 Version,
    /// R. Device type (5).
    0x008 DeviceId,
    /// R. Who made the device.
    0x00c VendorId,
    /// R. 32 of the offered features, those that `DeviceFeaturesSel` selects.
    0x010 DeviceFeatures,
    /// W. Which 32 features `DeviceFeatures` shows.
    0x014 DeviceFeaturesSel,
    /// W. 32 of the features that the driver wants, those that `DriverFeaturesSel` selects.
    0x020 DriverFeatures,
    /// W. Which 32 features `DriverFeatures` takes.
    0x024 DriverFeaturesSel,
    /// W. The queue that the following registers are about.
    0x030 QueueSel,
    /// R. Largest size of the queue in descriptors; 0 for a queue that is not there.
    0x034 QueueSizeMax,
    /// W. The size that the driver uses.
    0x038 QueueSize,
    /// RW. 1: the queue may be used.
    0x044 QueueReady,
    /// W. The doorbell: index of the queue that has something.
    0x050 QueueNotify,
    /// R. Bit 0: a used buffer; bit 1: a configuration change.
    0x060 InterruptStatus,
    /// W. The bits of `InterruptStatus` that the driver has taken care of.
    0x064 InterruptAck,
    /// RW. Device status (2.1); 0 resets.
    0x070 Status,
    /// W. Descriptor table or packed ring, low half.
    0x080 QueueDescLow,
    /// W. Descriptor area, high half.
    0x084 QueueDescHigh,
    /// W. Driver area: available ring or event suppression, low half.
    0x090 QueueDriverLow,
    /// W. Driver area, high half.
    0x094 QueueDriverHigh,
    /// W. Device area: used ring or event suppression, low half.
    0x0a0 QueueDeviceLow,
    /// W. Device area, high half.
    0x0a4 QueueDeviceHigh,
    /// W. The shared memory region that the following registers are about.
    0x0ac ShmSel,
    /// R. Its length, low half; all ones for a region that is not there.
    0x0b0 ShmLenLow,
    /// R. Its length, high half.
    0x0b4 ShmLenHigh,
    /// R. Its address, low half.
    0x0b8 ShmBaseLow,
    /// R. Its address, high half.
    0x0bc ShmBaseHigh,
    /// R. Another value when the configuration space has changed.
    0x0fc ConfigGeneration,
}

/// Where the configuration space of the device begins.
pub(super) const CONFIG_START: u64 = 0x100;

/// Bits of `InterruptStatus`.
pub(super) mod interrupt_status {
    /// A queue has used buffers.
    pub const USED_BUFFER: u32 = 1;
    /// The configuration space, or the status, has changed.
    pub const CONFIG_CHANGE: u32 = 2;
}
