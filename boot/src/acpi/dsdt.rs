//! The differentiated system description table (ACPI 6.5, 5.2.11.1): processors, devices and the sleep state
//! "off", in ACPI machine language (chapter 20).
//!
//! The keyboard controller is left out: it is there for the reset line alone, which kernels use without
//! having found it, and with an entry they would look for a keyboard.

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::sdt::Sdt;
use arch::layout::{self, gsi, port};

use super::{AcpiError, OEM_ID, OEM_REVISION, OEM_TABLE_ID, Platform, VirtioMmio, bytes_of};

/// Length of the header that all tables have.
const HEADER_BYTES: u32 = 36;
/// Since this revision integers have 64 bits.
const REVISION: u8 = 2;
/// `_STA`: present, enabled, shown, working (6.3.7).
const STATUS_WORKING: u8 = 0xf;

/// The table's bytes.
pub(super) fn table(platform: &Platform<'_>) -> Result<Vec<u8>, AcpiError> {
    let mut devices = Vec::new();
    for cpu in 0..platform.cpus {
        devices.extend(processor(cpu));
    }
    if platform.serial {
        devices.extend(legacy("COM1", "PNP0501", &port::COM1, gsi::COM1));
    }
    if platform.rtc {
        devices.extend(legacy("RTC_", "PNP0B00", &port::CMOS_RTC, gsi::RTC));
    }
    if platform.pvpanic {
        devices.extend(pvpanic());
    }
    for (index, host) in (0..).zip(platform.pci) {
        devices.extend(super::pci::devices(index, host)?);
    }
    let mut numbers = 0..=u8::MAX;
    for device in platform.virtio_mmio {
        let refused = || AcpiError::Device {
            address: device.address,
        };
        let number = numbers.next().ok_or_else(refused)?;
        devices.extend(virtio_mmio(number, device).ok_or_else(refused)?);
    }

    let mut table = Sdt::new(
        *b"DSDT",
        HEADER_BYTES,
        REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(&Scope::raw("\\_SB_".into(), devices));
    table.append_slice(&bytes_of(&soft_off()));
    Ok(table.as_slice().to_vec())
}

/// `_S5`: what to write to the sleep type field of PM1a and PM1b control to turn the power off (7.4.2.6).
fn soft_off() -> Name {
    let (pm1a, pm1b, reserved) = (layout::SLEEP_TYPE_S5, layout::SLEEP_TYPE_S5, 0u8);
    Name::new(
        "\\_S5_".into(),
        &Package::new(vec![&pm1a, &pm1b, &reserved, &reserved]),
    )
}

/// A processor (8.4). Its `_UID` is the identifier in the MADT.
fn processor(cpu: u8) -> Vec<u8> {
    bytes_of(&Device::new(
        format!("C{cpu:03X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"ACPI0007"),
            &Name::new("_UID".into(), &cpu),
        ],
    ))
}

/// A device of the PC, with its ports and its interrupt.
fn legacy(name: &str, id: &str, ports: &std::ops::Range<u16>, interrupt: u32) -> Vec<u8> {
    bytes_of(&Device::new(
        name.into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(id)),
            &Name::new("_UID".into(), &0u8),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&io(ports), &edge_high(interrupt)]),
            ),
        ],
    ))
}

/// The device through which a guest says that it has crashed, by the name that Linux's driver knows.
fn pvpanic() -> Vec<u8> {
    let ports = port::PVPANIC..port::PVPANIC.saturating_add(1);
    bytes_of(&Device::new(
        "PVPN".into(),
        vec![
            &Name::new("_HID".into(), &"QEMU0001"),
            &Name::new("_STA".into(), &STATUS_WORKING),
            &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&io(&ports)])),
        ],
    ))
}

/// A virtio device's window (virtio 1.3, 4.2.1), by the name that Linux's driver knows. Nothing, if it lies
/// where the entry cannot say.
fn virtio_mmio(number: u8, device: &VirtioMmio) -> Option<Vec<u8>> {
    let address = u32::try_from(device.address).ok()?;
    let length = u32::try_from(device.length).ok()?;
    address.checked_add(length)?;
    Some(bytes_of(&Device::new(
        format!("V{number:03X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &"LNRO0005"),
            &Name::new("_UID".into(), &number),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![
                    &Memory32Fixed::new(true, address, length),
                    &edge_high(device.gsi),
                ]),
            ),
        ],
    )))
}

fn io(ports: &std::ops::Range<u16>) -> IO {
    let length = u8::try_from(ports.len()).unwrap_or(u8::MAX);
    IO::new(ports.start, ports.start, 1, length)
}

/// An interrupt of one device alone: edge-triggered, active high.
fn edge_high(gsi: u32) -> Interrupt {
    let (consumer, edge_triggered, active_low, shared) = (true, true, false, false);
    Interrupt::new(consumer, edge_triggered, active_low, shared, gsi)
}
