//! ACPI tables: what the machine tells a kernel of its processors, interrupts, power and devices (ACPI 6.5,
//! chapter 5). Pure bytes into guest memory, once, before the guest starts.
//!
//! The tables lie in [`layout::ACPI_TABLES`], which the memory map calls reserved: the RSDP first, where a
//! kernel that is not told its address looks for it, then FACS, DSDT, FADT, MADT, MCFG for a machine with
//! PCI, and XSDT. Only what they fill is written, which for a small machine is one page.
//!
//! There is no SMI command port: a machine without one is in ACPI mode from the start and stays there
//! (4.8.2.5).

mod dsdt;
mod fadt;
mod madt;
mod pci;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use arch::layout;
pub use pci::PciHost;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// Who made the tables: six characters.
const OEM_ID: [u8; 6] = *b"CUDDY ";
/// For which machine: eight characters.
const OEM_TABLE_ID: [u8; 8] = *b"CUDDYVMM";
/// Revision of the tables' content.
const OEM_REVISION: u32 = 1;
/// Every table starts at a multiple of this. The FACS wants it (5.2.10); the others are content with less.
const ALIGNMENT_BYTES: usize = 64;

/// What of the machine the tables tell.
#[derive(Debug, Clone, Copy)]
pub struct Platform<'a> {
    /// Number of vCPUs, 1 to 255. Their APIC identifiers are 0 up to this, so that the last is 254 at the
    /// most: none needs the x2APIC form of an entry.
    pub cpus: u8,
    /// The interval timer arrives at pin [`layout::gsi::PIT_IOAPIC`] of the IOAPIC, not at its pin 0.
    pub pit_override: bool,
    /// The virtio devices, in the order of their numbers.
    pub virtio_mmio: &'a [VirtioMmio],
    /// The PCI root complexes, each with a segment group of its own; at most 16.
    pub pci: &'a [PciHost<'a>],
    /// There is a 16550A at [`layout::port::COM1`].
    pub serial: bool,
    /// There is a real-time clock at [`layout::port::CMOS_RTC`].
    pub rtc: bool,
    /// There is a pvpanic device at [`layout::port::PVPANIC`].
    pub pvpanic: bool,
}

/// Where a virtio-mmio device is. Its interrupt is edge-triggered and active high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMmio {
    /// First guest-physical address of its registers, below 4 GiB.
    pub address: u64,
    /// Length of its registers in bytes.
    pub length: u64,
    /// Its global system interrupt.
    pub gsi: u32,
}

/// Why there are no tables.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// A device's registers are not below 4 GiB, or there are more devices than names for them.
    #[error(
        "the virtio device at {address:#x} cannot be described: it must lie below 4 GiB and be one of at most 256"
    )]
    Device {
        /// First address of its registers.
        address: u64,
    },
    /// The configuration spaces or a window of PCI lie where they cannot be described.
    #[error("the PCI addresses from {address:#x} on cannot be described")]
    Pci {
        /// First of the addresses.
        address: u64,
    },
    /// The tables do not fit into their place.
    #[error("the ACPI tables take {bytes} bytes and there is room for {room}")]
    TooLarge {
        /// Size of the tables.
        bytes: usize,
        /// Size of [`layout::ACPI_TABLES`].
        room: u64,
    },
    /// Guest memory does not reach to the tables' place.
    #[error("the ACPI tables cannot be written into guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Writes all tables into [`layout::ACPI_TABLES`] and gives the address of the RSDP, which a kernel is told
/// in the zero page (`acpi_rsdp_addr`) or in PVH's start information (`rsdp_paddr`).
///
/// # Errors
///
/// [`AcpiError`] when a device cannot be described, when the tables are too large, or when guest memory is
/// too small to hold them.
pub fn write_tables(
    memory: &GuestMemoryMmap<()>,
    platform: &Platform<'_>,
) -> Result<GuestAddress, AcpiError> {
    let tables = tables(platform)?;
    let start = GuestAddress(layout::ACPI_TABLES.start);
    memory.write_slice(&tables, start)?;
    Ok(start)
}

/// The bytes for [`layout::ACPI_TABLES`].
fn tables(platform: &Platform<'_>) -> Result<Vec<u8>, AcpiError> {
    let mut image = Image {
        bytes: vec![0; Rsdp::len()],
    };
    let facs = image.append(&bytes_of(&FACS::new()));
    let dsdt = image.append(&dsdt::table(platform)?);
    let fadt = image.append(&bytes_of(&fadt::table(facs, dsdt, platform.rtc)));
    let madt = image.append(&madt::table(platform));
    let mcfg = (!platform.pci.is_empty()).then(|| {
        let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        for host in platform.pci {
            mcfg.add_ecam(host.ecam, host.segment, 0, host.last_bus);
        }
        image.append(&bytes_of(&mcfg))
    });
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt].into_iter().chain(mcfg) {
        xsdt.add_entry(u64::from(table));
    }
    let xsdt = image.append(&bytes_of(&xsdt));

    let Image { mut bytes } = image;
    let rsdp = bytes_of(&Rsdp::new(OEM_ID, u64::from(xsdt)));
    for (place, byte) in bytes.iter_mut().zip(rsdp) {
        *place = byte;
    }
    let room = layout::ACPI_TABLES
        .end
        .saturating_sub(layout::ACPI_TABLES.start);
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= room => Ok(bytes),
        _ => Err(AcpiError::TooLarge {
            bytes: bytes.len(),
            room,
        }),
    }
}

/// Tables one after the other, from the start of [`layout::ACPI_TABLES`].
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table and gives its guest-physical address.
    fn append(&mut self, table: &[u8]) -> u32 {
        let offset = self.bytes.len().next_multiple_of(ALIGNMENT_BYTES);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(table);
        // An image that leaves its place is refused as a whole, whatever was put down here.
        let address = layout::ACPI_TABLES.start.saturating_add(offset as u64);
        u32::try_from(address).unwrap_or(u32::MAX)
    }
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
