use std::ops::Range;

use proptest::prelude::*;

use super::*;

const ROOM: usize = 0x2_0000;

fn devices(count: usize) -> Vec<VirtioMmio> {
    (0u64..)
        .zip(layout::gsi::VIRTIO_MMIO)
        .take(count)
        .map(|(number, gsi)| VirtioMmio {
            address: layout::VIRTIO_MMIO.start + number * layout::VIRTIO_MMIO_STRIDE,
            length: layout::VIRTIO_MMIO_LENGTH,
            gsi,
        })
        .collect()
}

fn platform(cpus: u8, virtio_mmio: &[VirtioMmio]) -> Platform<'_> {
    Platform {
        cpus,
        pit_override: true,
        virtio_mmio,
        pci: &[],
        serial: true,
        rtc: true,
        pvpanic: true,
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn number<const N: usize>(bytes: &[u8], offset: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[offset..offset + N]);
    u64::from_le_bytes(wide)
}

/// The tables as a kernel finds them: each by the address that another gives.
struct Found<'a> {
    image: &'a [u8],
}

impl<'a> Found<'a> {
    fn at(&self, address: u64) -> &'a [u8] {
        assert!(layout::ACPI_TABLES.contains(&address), "{address:#x}");
        &self.image[usize::try_from(address - layout::ACPI_TABLES.start).unwrap()..]
    }

    /// A table with the common header, its checksum verified.
    fn table(&self, address: u64, signature: &[u8; 4]) -> &'a [u8] {
        let bytes = self.at(address);
        let table = &bytes[..usize::try_from(number::<4>(bytes, 4)).unwrap()];
        assert_eq!(&table[..4], signature);
        assert_eq!(sum(table), 0, "checksum of {signature:?}");
        assert_eq!(&table[10..16], b"CUDDY ");
        table
    }

    fn rsdp(&self) -> &'a [u8] {
        let rsdp = &self.image[..36];
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!((rsdp[15], number::<4>(rsdp, 20)), (2, 36));
        rsdp
    }

    /// The FADT and the MADT.
    fn listed(&self) -> [&'a [u8]; 2] {
        let xsdt = self.table(number::<8>(self.rsdp(), 24), b"XSDT");
        assert_eq!(xsdt.len(), 36 + 16);
        [
            self.table(number::<8>(xsdt, 36), b"FACP"),
            self.table(number::<8>(xsdt, 44), b"APIC"),
        ]
    }

    fn dsdt(&self) -> &'a [u8] {
        let [fadt, _] = self.listed();
        assert_eq!(number::<4>(fadt, 40), number::<8>(fadt, 140));
        self.table(number::<4>(fadt, 40), b"DSDT")
    }
}

/// The MADT's entries: type and fields.
fn entries(madt: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut rest = &madt[44..];
    let mut entries = Vec::new();
    while let [kind, length, ..] = *rest {
        let (entry, behind) = rest.split_at(usize::from(length));
        entries.push((kind, entry[2..].to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    entries
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack
        .windows(needle.len())
        .filter(|part| part == &needle)
        .count()
}

#[test]
fn the_fadt_tells_of_the_fixed_registers() {
    let image = tables(&platform(1, &[])).unwrap();
    let [fadt, _] = Found { image: &image }.listed();
    assert_eq!(fadt.len(), 276);
    assert_eq!((fadt[8], fadt[131]), (6, 5), "ACPI 6.5");
    assert_eq!(number::<2>(fadt, 46), 9, "SCI");
    assert_eq!(number::<4>(fadt, 48), 0, "no SMI command port");
    assert_eq!((number::<4>(fadt, 56), fadt[88]), (0x600, 4), "PM1a event");
    assert_eq!(
        (number::<4>(fadt, 64), fadt[89]),
        (0x604, 2),
        "PM1a control"
    );
    assert_eq!((number::<4>(fadt, 76), fadt[91]), (0x608, 4), "PM timer");
    assert_eq!(fadt[148..160], [1, 32, 0, 2, 0, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[172..184], [1, 16, 0, 2, 4, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[208..220], [1, 32, 0, 3, 8, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(fadt[116..129], [1, 8, 0, 1, 0xf9, 0xc, 0, 0, 0, 0, 0, 0, 6]);
    let flags = number::<4>(fadt, 112);
    assert_ne!(flags & 1 << 10, 0, "reset register");
    assert_ne!(flags & 1 << 8, 0, "32 bits of timer");
    assert_eq!(flags & 1 << 4, 0, "fixed power button");
    assert_eq!(flags & 1 << 20, 0, "hardware is not reduced");
    assert_eq!(number::<2>(fadt, 109), 0b101);
    assert_eq!(fadt[108], 0x32, "century");

    let facs = Found { image: &image }.at(number::<4>(fadt, 36));
    assert_eq!((&facs[..4], number::<4>(facs, 4)), (b"FACS".as_slice(), 64));
    assert_eq!(number::<4>(fadt, 36) % 64, 0);
}

#[test]
fn without_a_clock_the_fadt_says_so() {
    let without = Platform {
        rtc: false,
        ..platform(1, &[])
    };
    let image = tables(&without).unwrap();
    let [fadt, _] = Found { image: &image }.listed();
    assert_eq!((fadt[108], number::<2>(fadt, 109)), (0, 0b10_0101));
    assert_eq!(count(Found { image: &image }.dsdt(), b"RTC_"), 0);
}

#[test]
fn the_madt_tells_of_interrupts() {
    let image = tables(&platform(2, &[])).unwrap();
    let [_, madt] = Found { image: &image }.listed();
    assert_eq!(number::<4>(madt, 36), 0xfee0_0000);
    assert_eq!(number::<4>(madt, 40), 1);
    let expected: [(u8, &[u8]); 6] = [
        (0, &[0, 0, 1, 0, 0, 0]),
        (0, &[1, 1, 1, 0, 0, 0]),
        (1, &[0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]),
        (2, &[0, 0, 2, 0, 0, 0, 0, 0]),
        (2, &[0, 9, 9, 0, 0, 0, 0xd, 0]),
        (4, &[0xff, 0, 0, 1]),
    ];
    assert_eq!(
        entries(madt),
        expected.map(|(kind, fields)| (kind, fields.to_vec()))
    );

    let direct = Platform {
        pit_override: false,
        ..platform(2, &[])
    };
    let image = tables(&direct).unwrap();
    let [_, madt] = Found { image: &image }.listed();
    let overrides = entries(madt).into_iter().filter(|(kind, _)| *kind == 2);
    assert_eq!(overrides.count(), 1);
}

#[test]
fn the_largest_machine_fits() {
    let devices = devices(15);
    let image = tables(&platform(255, &devices)).unwrap();
    assert!(image.len() < ROOM / 2, "{} bytes", image.len());
    let found = Found { image: &image };
    let [_, madt] = found.listed();
    let processors = entries(madt).into_iter().filter(|(kind, _)| *kind == 0);
    assert_eq!(processors.count(), 255);
    assert_eq!(count(found.dsdt(), b"ACPI0007\0"), 255);
    assert_eq!(count(found.dsdt(), b"LNRO0005\0"), 15);
}

#[test]
fn a_small_machine_touches_one_page() {
    let image = tables(&platform(2, &devices(3))).unwrap();
    assert!(image.len() <= 4096, "{} bytes", image.len());
}

#[test]
fn the_dsdt_has_what_the_machine_has() {
    let image = tables(&platform(1, &devices(1))).unwrap();
    let dsdt = Found { image: &image }.dsdt();
    // \_S5: a package of four, the first two 5.
    assert_eq!(count(dsdt, b"\\_S5_\x12\x08\x04\x0a\x05\x0a\x05"), 1);
    assert_eq!(count(dsdt, b"QEMU0001\0"), 1);
    // Ports 0x3f8 to 0x3ff, then interrupt 4: a consumer's, edge, active high, exclusive.
    assert_eq!(
        count(
            dsdt,
            &[
                0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0
            ]
        ),
        1
    );
    assert_eq!(
        count(
            dsdt,
            &[
                0x47, 1, 0x70, 0, 0x70, 0, 1, 2, 0x89, 6, 0, 3, 1, 8, 0, 0, 0
            ]
        ),
        1
    );
    // The window at 0xfe00_0000, 0x200 long, then interrupt 16.
    let window = [
        0x86, 9, 0, 1, 0, 0, 0, 0xfe, 0, 2, 0, 0, 0x89, 6, 0, 3, 1, 16, 0, 0, 0,
    ];
    assert_eq!(count(dsdt, &window), 1);

    let bare = Platform {
        serial: false,
        rtc: false,
        pvpanic: false,
        ..platform(1, &[])
    };
    let image = tables(&bare).unwrap();
    let dsdt = Found { image: &image }.dsdt();
    for name in [b"COM1", b"RTC_", b"PVPN", b"V000"] {
        assert_eq!(count(dsdt, name), 0);
    }
}

#[test]
fn a_root_complex_is_told_in_two_tables() {
    let windows = [0xc000_0000..0xe000_0000, 0x1_0000_0000..0x11_0000_0000];
    let pins: Vec<_> = (1..4).zip(17..).collect();
    let host = PciHost {
        segment: 0,
        ecam: 0xe000_0000,
        last_bus: 0,
        windows: &windows,
        hot_plug: false,
        pins: &pins,
    };
    let with_pci = |host| {
        tables(&Platform {
            pci: &[host],
            ..platform(2, &[])
        })
    };
    let image = with_pci(host).unwrap();
    assert!(image.len() <= 4096, "{} bytes", image.len());
    let found = Found { image: &image };
    let xsdt = found.table(number::<8>(found.rsdp(), 24), b"XSDT");
    assert_eq!(xsdt.len(), 36 + 3 * 8);
    let mcfg = found.table(number::<8>(xsdt, 52), b"MCFG");
    assert_eq!(
        mcfg[44..],
        [0, 0, 0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    let fadt = found.table(number::<8>(xsdt, 36), b"FACP");
    let dsdt = found.table(number::<4>(fadt, 40), b"DSDT");
    // Bus numbers 0 to 0, then the ports.
    let buses = [0x88, 13, 0, 2, 0xc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let ports = [0x47, 1, 0xf8, 0xc, 0xf8, 0xc, 1, 8];
    assert_eq!(count(dsdt, &[&buses[..], &ports].concat()), 1);
    let below = [
        0x87, 23, 0, 0, 0xc, 1, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xdf, 0, 0, 0, 0, 0,
        0, 0, 0x20,
    ];
    assert_eq!(count(dsdt, &below), 1);
    assert_eq!(count(dsdt, &[0x8a, 43, 0, 0, 0xc, 1]), 1);
    // INTA# of device 3 on interrupt 19.
    assert_eq!(
        count(dsdt, &[0x12, 11, 4, 0xc, 0xff, 0xff, 3, 0, 0, 0, 0x0a, 19]),
        1
    );
    assert_eq!(count(dsdt, b"_OSC"), 1);
    // And of the third doubleword with what is granted.
    let granted = |control| [b"{CDW3\x0a".as_slice(), &[control], b"CDW3"].concat();
    assert_eq!(count(dsdt, &granted(0x10)), 1);
    let slots = PciHost {
        hot_plug: true,
        ..host
    };
    let with_slots = with_pci(slots).unwrap();
    assert_eq!(count(&with_slots, &granted(0x11)), 1);
    assert_eq!(count(dsdt, b"ECAM"), 1);

    for host in [
        PciHost {
            ecam: 0xfff0_0000,
            last_bus: 1,
            ..host
        },
        PciHost {
            ecam: 1 << 32,
            ..host
        },
        PciHost {
            windows: &[Range {
                start: 0xc000_0000,
                end: 0x1_8000_0000,
            }],
            ..host
        },
        PciHost {
            windows: &[Range { start: 5, end: 5 }],
            ..host
        },
    ] {
        assert!(matches!(with_pci(host), Err(AcpiError::Pci { .. })));
    }
}

#[test]
fn each_segment_has_its_own_bridge_and_configuration_spaces() {
    let windows = [0xc000_0000..0xd000_0000, 0xd000_0000..0xe000_0000];
    let host = |segment: u16| PciHost {
        segment: 3 * segment,
        ecam: 0xe000_0000 + u64::from(segment) * 0x100_0000,
        last_bus: 2,
        windows: std::slice::from_ref(&windows[usize::from(segment)]),
        hot_plug: false,
        pins: &[],
    };
    let hosts = [host(0), host(1)];
    let image = tables(&Platform {
        pci: &hosts,
        ..platform(1, &[])
    })
    .unwrap();
    let found = Found { image: &image };
    let xsdt = found.table(number::<8>(found.rsdp(), 24), b"XSDT");
    let mcfg = found.table(number::<8>(xsdt, 52), b"MCFG");
    assert_eq!(mcfg.len(), 44 + 2 * 16);
    assert_eq!(
        mcfg[60..],
        [0, 0, 0, 0xe1, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0, 0]
    );
    let fadt = found.table(number::<8>(xsdt, 36), b"FACP");
    let dsdt = found.table(number::<4>(fadt, 40), b"DSDT");
    for name in [b"PCI0", b"PCI1", b"ECAM", b"ECM1"] {
        assert_eq!(count(dsdt, name), 1);
    }
    assert_eq!(count(dsdt, b"_SEG\x0a\x03"), 1);
    let ports = [0x47, 1, 0xf8, 0xc, 0xf8, 0xc, 1, 8];
    assert_eq!(count(dsdt, &ports), 1, "of one segment alone");
    let many = [host(0); 17];
    let refused = tables(&Platform {
        pci: &many,
        ..platform(1, &[])
    });
    assert!(matches!(refused, Err(AcpiError::Pci { .. })));
}

#[test]
fn tables_are_written_where_kernels_look() {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 2 << 20)]).unwrap();
    let devices = devices(2);
    let address = write_tables(&memory, &platform(1, &devices)).unwrap();
    assert_eq!(address.0, layout::ACPI_TABLES.start);
    let mut image = vec![0; ROOM];
    memory.read_slice(&mut image, address).unwrap();
    let expected = tables(&platform(1, &devices)).unwrap();
    assert_eq!(image[..expected.len()], expected);

    let small = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 0xe_0000)]).unwrap();
    assert!(matches!(
        write_tables(&small, &platform(1, &[])),
        Err(AcpiError::Memory(_))
    ));
}

#[test]
fn devices_that_cannot_be_described_are_refused() {
    let at = |address, length| VirtioMmio {
        address,
        length,
        gsi: 16,
    };
    for device in [at(1 << 32, 0x200), at(0xffff_ff00, 0x200), at(0, 1 << 32)] {
        assert!(matches!(
            tables(&platform(1, &[device])),
            Err(AcpiError::Device { address }) if address == device.address
        ));
    }
    assert!(tables(&platform(1, &[at(0x1000, 0x200); 256])).is_ok());
    assert!(tables(&platform(1, &[at(0x1000, 0x200); 257])).is_err());
}

proptest! {
    #[test]
    fn every_machine_has_sound_tables(
        cpus in 1u8..,
        count_of_devices in 0usize..=15,
        flags in any::<[bool; 4]>(),
    ) {
        let devices = devices(count_of_devices);
        let [pit_override, serial, rtc, pvpanic] = flags;
        let machine = Platform { pit_override, serial, rtc, pvpanic, ..platform(cpus, &devices) };
        let image = tables(&machine).unwrap();
        prop_assert!(image.len() <= ROOM);
        let found = Found { image: &image };
        let [_, madt] = found.listed();
        let apic_ids: Vec<_> = entries(madt)
            .into_iter()
            .filter(|(kind, _)| *kind == 0)
            .map(|(_, fields)| fields[1])
            .collect();
        prop_assert_eq!(apic_ids, (0..cpus).collect::<Vec<_>>());
        prop_assert_eq!(count(found.dsdt(), b"LNRO0005\0"), count_of_devices);
    }
}
