use proptest::prelude::*;

use super::*;
use crate::header::command;

const IDENTITY: Identity = Identity {
    vendor_id: 0x1af4,
    device_id: 0x1042,
    revision_id: 1,
    class: [1, 2, 3],
    subsystem_vendor_id: 0x1111,
    subsystem_id: 0x2222,
};

const REGISTERS: Bar = Bar {
    size_bytes: 0x8000,
    width: BarWidth::Bits64,
    prefetchable: false,
};

fn space() -> ConfigurationSpace {
    let mut space = ConfigurationSpace::new(IDENTITY);
    space.add_bar(2, REGISTERS).unwrap();
    space
}

fn read(space: &ConfigurationSpace, offset: u16) -> u32 {
    let mut data = [0; 4];
    space.read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_header_says_who_it_is_and_stays_so() {
    let mut space = space();
    let expected = [
        (0x00, 0x1042_1af4),
        (0x08, 0x0102_0301),
        (0x0c, 0),
        (0x2c, 0x2222_1111),
    ];
    for _ in 0..2 {
        for (offset, value) in expected {
            assert_eq!(read(&space, offset), value, "{offset:#x}");
        }
        for offset in [0x00, 0x08, 0x2c] {
            space.write(offset, &[0xff; 4]);
        }
    }
    space.write(0x04, &[0xff; 4]);
    assert_eq!(read(&space, 0x04), 0x0000_0546);
    space.write(0x3c, &[0xff; 4]);
    assert_eq!(read(&space, 0x3c), 0xff);
}

#[test]
fn a_guest_learns_the_size_of_registers_and_moves_them() {
    let mut space = space();
    assert_eq!(space.decoded(2), None);
    space.write(0x18, &[0xff; 4]);
    space.write(0x1c, &[0xff; 4]);
    assert_eq!(read(&space, 0x18), 0xffff_8004);
    assert_eq!(read(&space, 0x1c), u32::MAX);
    space.write(0x18, &0xd000_1234_u32.to_le_bytes());
    space.write(0x1c, &7_u32.to_le_bytes());
    assert_eq!(read(&space, 0x18), 0xd000_0004);
    assert_eq!(space.decoded(2), None, "memory is not decoded");
    space.write(0x04, &command::MEMORY.to_le_bytes());
    assert_eq!(space.decoded(2), Some(0x7_d000_0000..0x7_d000_8000));
    for offset in [0x10, 0x14, 0x20, 0x24, 0x30] {
        space.write(offset, &[0xff; 4]);
        assert_eq!(read(&space, offset), 0, "{offset:#x}");
    }
    space.write(0x18, &[0xff; 8]);
    assert_eq!(space.decoded(2), None, "the end of the address space");
    space.reset();
    assert_eq!((read(&space, 0x18), read(&space, 0x04)), (4, 0));
}

#[test]
fn impossible_registers_are_refused() {
    let mut space = space();
    let bar = |size_bytes, width| Bar {
        size_bytes,
        width,
        prefetchable: true,
    };
    for (index, bar) in [
        (0, bar(0, BarWidth::Bits32)),
        (0, bar(8, BarWidth::Bits32)),
        (0, bar(48, BarWidth::Bits64)),
        (0, bar(1 << 32, BarWidth::Bits32)),
        (5, bar(64, BarWidth::Bits64)),
        (6, bar(64, BarWidth::Bits32)),
        (1, bar(64, BarWidth::Bits64)),
        (2, bar(64, BarWidth::Bits32)),
        (3, bar(64, BarWidth::Bits32)),
    ] {
        let refused = ConfigurationError::Bar { index, bar };
        assert_eq!(space.add_bar(index, bar), Err(refused));
    }
    space.add_bar(5, bar(64, BarWidth::Bits32)).unwrap();
    assert_eq!(read(&space, 0x24), 8);
    space.write(0x24, &[0xff; 4]);
    assert_eq!(read(&space, 0x24), 0xffff_ffc8);
}

#[test]
fn capabilities_are_linked_and_end() {
    let mut space = space();
    assert_eq!(read(&space, 0x34), 0);
    let first = space
        .add_capability(CapabilityId::Vendor, &[5, 6, 7], &[0, 0xff])
        .unwrap();
    let second = space
        .add_capability(CapabilityId::MsiX, &[8; 10], &[])
        .unwrap();
    assert_eq!((first, second), (0x42, 0x4a));
    assert_eq!(read(&space, 0x34), 0x40);
    assert_eq!(read(&space, 0x40), 0x0605_4809);
    assert_eq!(read(&space, 0x48), 0x0808_0011);
    assert_eq!(space.number::<2>(0x06), 0x10);
    space.write(0x40, &[0xff; 8]);
    assert_eq!(read(&space, 0x40), 0xff05_4809);
    let full = space.add_capability(CapabilityId::Vendor, &[0; 200], &[]);
    assert_eq!(full, Err(ConfigurationError::NoRoom { length: 202 }));
}

proptest! {
    /// Whatever is written: bits outside of the masks stay, bits inside are as they were last written.
    #[test]
    fn only_writable_bits_change(
        writes in prop::collection::vec((0u16..300, prop::collection::vec(any::<u8>(), 1..9)), 0..50)
    ) {
        let mut space = space();
        let before = space.clone();
        let mut model = before.bytes;
        for (offset, data) in writes {
            space.write(offset, &data);
            for (index, byte) in (usize::from(offset)..).zip(&data).filter(|(index, _)| *index < 256) {
                let mask = before.writable[index];
                model[index] = model[index] & !mask | byte & mask;
            }
        }
        prop_assert_eq!(space.bytes, model);
        for bar in 0..8 {
            if let Some(range) = space.decoded(bar) {
                prop_assert_eq!((range.end - range.start, range.start % 0x8000), (0x8000, 0));
            }
        }
        space.reset();
        prop_assert_eq!(space.bytes, before.bytes);
    }
}
