//! The type 0 header, which functions that are no bridges have (PCI Local Bus Specification 3.0, 6.1 and
//! 6.2; PCI Express Base Specification 5.0, 7.5.1). Most of its registers are in the type 1 header too.

/// Offsets of the header's registers.
pub(crate) mod register {
    /// Vendor identifier, two bytes.
    pub const VENDOR_ID: u8 = 0x00;
    /// Device identifier, two bytes.
    pub const DEVICE_ID: u8 = 0x02;
    /// Command, two bytes.
    pub const COMMAND: u8 = 0x04;
    /// Status, two bytes.
    pub const STATUS: u8 = 0x06;
    /// Revision, one byte.
    pub const REVISION_ID: u8 = 0x08;
    /// Class code: programming interface, sub-class, base class; three bytes.
    pub const CLASS_CODE: u8 = 0x09;
    /// Cache line size, one byte: kept for old software, without effect.
    pub const CACHE_LINE_SIZE: u8 = 0x0c;
    /// Which header this is, one byte.
    pub const HEADER_TYPE: u8 = 0x0e;
    /// The first of six base address registers of four bytes.
    pub const BAR_0: u8 = 0x10;
    /// Subsystem vendor identifier, two bytes.
    pub const SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
    /// Subsystem identifier, two bytes.
    pub const SUBSYSTEM_ID: u8 = 0x2e;
    /// Offset of the first capability, one byte.
    pub const CAPABILITIES: u8 = 0x34;
    /// For software alone: which interrupt the pin is wired to, one byte. The next byte says which pin the
    /// function drives, 1 for INTA#.
    pub const INTERRUPT_LINE: u8 = 0x3c;
    /// Capabilities are after the header.
    pub const HEADER_END: u8 = 0x40;
}

/// Bits of the command register (PCIe 5.0, 7.5.1.1.3).
pub mod command {
    /// Memory base address registers are decoded.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may send requests, message-signalled interrupts among them.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// Parity errors are reported. There are none.
    pub const PARITY_ERROR: u16 = 1 << 6;
    /// Errors are reported. There are none.
    pub const SERR: u16 = 1 << 8;
    /// The INTx pin stays still.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Bits of the status register (PCIe 5.0, 7.5.1.1.4).
pub(crate) mod status {
    /// The function wants an INTx interrupt.
    pub const INTERRUPT: u16 = 1 << 3;
    /// There are capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
}

/// The bits that a write changes, by the offset of their register. What is not listed, and is neither a
/// base address register nor a capability, is read-only. The I/O space bit of the command is, because no
/// function here has I/O registers (PCI 3.0, 6.2.2).
pub(crate) const WRITABLE: [(u8, u16); 3] = [
    (
        register::COMMAND,
        command::MEMORY
            | command::BUS_MASTER
            | command::PARITY_ERROR
            | command::SERR
            | command::INTX_DISABLE,
    ),
    (register::CACHE_LINE_SIZE, 0x00ff),
    (register::INTERRUPT_LINE, 0x00ff),
];

/// What a function says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor, as the PCI-SIG numbers them.
    pub vendor_id: u16,
    /// Device, as its vendor numbers them.
    pub device_id: u16,
    /// Revision.
    pub revision_id: u8,
    /// Base class, sub-class, programming interface (PCI Code and ID Assignment Specification).
    pub class: [u8; 3],
    /// Vendor of the subsystem.
    pub subsystem_vendor_id: u16,
    /// The subsystem, as its vendor numbers them.
    pub subsystem_id: u16,
}
