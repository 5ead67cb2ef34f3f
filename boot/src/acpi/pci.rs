//! The PCI root complex in the DSDT (PCI Firmware Specification 3.3, 4; ACPI 6.5, 6.2): its buses, windows
//! and wires, and who controls what.

use std::ops::Range;

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Arg, CreateDWordField, Device, EISAName, Else, Equal,
    IO, If, Local, Memory32Fixed, Method, Name, NotEqual, Or, Package, Path, ResourceTemplate,
    Return, Store, Uuid,
};
use arch::layout::port;

use super::{AcpiError, bytes_of};

/// A host bridge with PCI Express (PCI Firmware Specification 3.3, 4.1.2).
const EXPRESS_HOST_BRIDGE: &str = "PNP0A08";
/// What a kernel without PCI Express takes it for.
const HOST_BRIDGE: &str = "PNP0A03";
/// Addresses that belong to the machine and to no device (4.1.2: those of the MCFG have to be told here).
const MOTHERBOARD: &str = "PNP0C02";
/// The interface of `_OSC` for host bridges (4.5.1).
const HOST_BRIDGE_INTERFACE: &str = "33DB4D5B-1FF7-401C-9657-7441C03DD766";
/// What a kernel may control (table 4-6): the PCI Express capability structures. There are no power events
/// or error reports that it could.
const EXPRESS_CAPABILITIES: u8 = 1 << 4;
/// The hot-plug registers of PCI Express, where there are slots.
const EXPRESS_HOT_PLUG: u8 = 1 << 0;
/// Answers of `_OSC` in its first doubleword (ACPI 6.5, table 6.12): unknown interface, and less granted
/// than was asked for.
const UNRECOGNISED_INTERFACE: u8 = 1 << 2;
const CAPABILITIES_MASKED: u8 = 1 << 4;
/// Names have one digit for them.
const HOSTS_MAX: u8 = 16;
/// In `_PRT`: all functions of a device (ACPI 6.5, 6.2.13).
const ALL_FUNCTIONS: u32 = 0xffff;
/// In `_PRT`: INTA#.
const INTA: u8 = 0;

/// The root complex of a segment.
#[derive(Debug, Clone, Copy)]
pub struct PciHost<'a> {
    /// Its segment group.
    pub segment: u16,
    /// Guest-physical address of the configuration spaces of bus 0, below 4 GiB.
    pub ecam: u64,
    /// Number of the last bus.
    pub last_bus: u8,
    /// Addresses that it forwards to functions, each below or above 4 GiB.
    pub windows: &'a [Range<u64>],
    /// There are hot-plug slots, which a kernel is to serve by their PCI Express registers.
    pub hot_plug: bool,
    /// Devices of the root bus with an INTA#, and the global system interrupt that this ends on.
    pub pins: &'a [(u8, u32)],
}

/// The host bridge, and the addresses of the configuration spaces, of the root complex that has this place in
/// their order.
pub(super) fn devices(index: u8, host: &PciHost<'_>) -> Result<Vec<u8>, AcpiError> {
    if index >= HOSTS_MAX {
        return Err(AcpiError::Pci { address: host.ecam });
    }
    let mut devices = bridge(index, host)?;
    devices.extend(configuration_spaces(index, host)?);
    Ok(devices)
}

fn bridge(index: u8, host: &PciHost<'_>) -> Result<Vec<u8>, AcpiError> {
    let ports = &port::PCI_CONFIGURATION;
    let length = u8::try_from(ports.len()).unwrap_or(u8::MAX);
    let ports = IO::new(ports.start, ports.start, 1, length);
    let buses = AddressSpace::new_bus_number(0u16, u16::from(host.last_bus));
    let windows: Vec<_> = host.windows.iter().map(window).collect::<Result<_, _>>()?;
    let mut resources: Vec<&dyn Aml> = vec![&buses];
    if host.segment == 0 {
        // The ports know of no segments (PCI 3.0, 3.2.2.3.2).
        resources.push(&ports);
    }
    resources.extend(windows.iter().map(|window| &**window));
    let pins: Vec<_> = host.pins.iter().map(|pin| Pin(*pin)).collect();
    let pins = pins.iter().map(|pin| pin as &dyn Aml).collect();
    Ok(bytes_of(&Device::new(
        format!("PCI{index:X}").as_str().into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(EXPRESS_HOST_BRIDGE)),
            &Name::new("_CID".into(), &EISAName::new(HOST_BRIDGE)),
            &Name::new("_UID".into(), &index),
            &Name::new("_SEG".into(), &host.segment),
            &Name::new("_BBN".into(), &0u8),
            &Name::new("_CRS".into(), &ResourceTemplate::new(resources)),
            &Name::new("_PRT".into(), &Package::new(pins)),
            &OperatingSystemCapabilities::of(host),
        ],
    )))
}

fn window(range: &Range<u64>) -> Result<Box<dyn Aml>, AcpiError> {
    let refused = AcpiError::Pci {
        address: range.start,
    };
    let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else {
        return Err(refused);
    };
    match (u32::try_from(range.start), u32::try_from(last)) {
        (Ok(start), Ok(last)) => Ok(Box::new(memory(start, last))),
        (Err(_), Err(_)) => Ok(Box::new(memory(range.start, last))),
        _ => Err(refused),
    }
}

fn memory<T: Default>(first: T, last: T) -> AddressSpace<T> {
    let writable = true;
    AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        writable,
        first,
        last,
        None,
    )
}

/// An entry of `_PRT` (ACPI 6.5, 6.2.13): the wire of a device's INTA#, by its global system interrupt.
struct Pin((u8, u32));

impl Aml for Pin {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let Self((device, gsi)) = self;
        let address = u32::from(*device) << 16 | ALL_FUNCTIONS;
        Package::new(vec![&address, &INTA, &0u8, gsi]).to_aml_bytes(sink);
    }
}

/// `_OSC` (ACPI 6.5, 6.2.11): takes what a kernel wants to control, and leaves of it what it may.
struct OperatingSystemCapabilities {
    granted: u8,
}

impl OperatingSystemCapabilities {
    const fn of(host: &PciHost<'_>) -> Self {
        let granted = match host.hot_plug {
            true => EXPRESS_CAPABILITIES | EXPRESS_HOT_PLUG,
            false => EXPRESS_CAPABILITIES,
        };
        Self { granted }
    }
}

impl Aml for OperatingSystemCapabilities {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let (status, control) = (Path::new("CDW1"), Path::new("CDW3"));
        let (interface, capabilities, wanted) = (Arg(0), Arg(3), Local(0));
        let (arguments, serialised) = (4, false);
        Method::new(
            "_OSC".into(),
            arguments,
            serialised,
            vec![
                &CreateDWordField::new(&status, &capabilities, &0u8),
                &If::new(
                    &Equal::new(&interface, &Uuid::new(HOST_BRIDGE_INTERFACE)),
                    vec![
                        &CreateDWordField::new(&control, &capabilities, &8u8),
                        &Store::new(&wanted, &control),
                        &And::new(&control, &control, &self.granted),
                        &If::new(
                            &NotEqual::new(&control, &wanted),
                            vec![&Or::new(&status, &status, &CAPABILITIES_MASKED)],
                        ),
                    ],
                ),
                &Else::new(vec![&Or::new(&status, &status, &UNRECOGNISED_INTERFACE)]),
                &Return::new(&capabilities),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// The addresses of the configuration spaces.
fn configuration_spaces(index: u8, host: &PciHost<'_>) -> Result<Vec<u8>, AcpiError> {
    let buses = u64::from(host.last_bus).saturating_add(1);
    let length = buses.saturating_mul(arch::layout::PCI_ECAM_BUS_BYTES);
    let refused = |_| AcpiError::Pci { address: host.ecam };
    let end = host.ecam.saturating_add(length);
    u32::try_from(end).map_err(refused)?;
    let address = u32::try_from(host.ecam).map_err(refused)?;
    let length = u32::try_from(length).map_err(refused)?;
    let writable = true;
    let name = match index {
        0 => "ECAM".to_owned(),
        _ => format!("ECM{index:X}"),
    };
    Ok(bytes_of(&Device::new(
        name.as_str().into(),
        vec![
            &Name::new("_HID".into(), &EISAName::new(MOTHERBOARD)),
            // Devices of the same kind have other numbers, and so may these.
            &Name::new("_UID".into(), &index.saturating_add(1)),
            &Name::new(
                "_CRS".into(),
                &ResourceTemplate::new(vec![&Memory32Fixed::new(writable, address, length)]),
            ),
        ],
    )))
}
