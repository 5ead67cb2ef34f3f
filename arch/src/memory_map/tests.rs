use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

#[test]
fn ram_goes_around_the_hole_below_4_gib() {
    let map = |size| MemoryMap::new(size, 46).unwrap().ram().to_vec();
    let low_alone = |end| vec![Range { start: 0, end }];
    assert_eq!(map(2 * GIB), low_alone(2 * GIB));
    assert_eq!(map(3 * GIB), low_alone(3 * GIB));
    assert_eq!(map(4 * GIB), [0..3 * GIB, 4 * GIB..5 * GIB]);
    assert_eq!(map(12 << 40), [0..3 * GIB, 4 * GIB..(12 << 40) + GIB]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    assert!(matches!(
        MemoryMap::new(RAM_MINIMUM_BYTES - 4096, 46),
        Err(MemoryMapError::TooSmall { .. })
    ));
    assert!(matches!(
        MemoryMap::new(GIB + 1, 46),
        Err(MemoryMapError::NotWholePages { .. })
    ));
    assert_eq!(MemoryMap::new(63 * GIB, 36).unwrap().size_bytes(), 63 * GIB);
    assert_eq!(
        MemoryMap::new(63 * GIB + 4096, 36),
        Err(MemoryMapError::AddressWidth {
            size_bytes: 63 * GIB + 4096,
            physical_address_bits: 36,
            maximum_bytes: 63 * GIB,
        })
    );
    assert!(MemoryMap::new(u64::MAX - 4095, 64).is_err());
    assert!(MemoryMap::new(4 * GIB, 32).is_err());
}

#[test]
fn registers_that_are_too_large_for_the_hole_come_after_ram() {
    let window = |size, bits| MemoryMap::new(size, bits).unwrap().high_window(bits);
    assert_eq!(window(GIB, 46), Some(4 * GIB..68 * GIB));
    assert_eq!(window(4 * GIB, 46), Some(8 * GIB..72 * GIB));
    assert_eq!(window(4 * GIB, 36), Some(8 * GIB..64 * GIB));
    assert_eq!(window(61 * GIB, 36), None);
    assert_eq!(window(GIB, 52), Some(4 * GIB..68 * GIB));
    assert_eq!(window(GIB, 32), None);
    assert_eq!(window(80 << 40, 52), None);
}

proptest! {
    #[test]
    fn the_kernels_map_is_sorted_and_tells_of_ram_alone(pages in 512u64..1 << 30) {
        let map = MemoryMap::new(pages * 4096, 48).unwrap();
        prop_assert_eq!(map.size_bytes(), pages * 4096);
        let entries = map.e820();
        for pair in entries.windows(2) {
            prop_assert!(pair[0].address + pair[0].length <= pair[1].address);
        }
        let mut usable = 0;
        for entry in entries.iter().filter(|entry| entry.kind == E820Type::Ram) {
            usable += entry.length;
            let end = entry.address + entry.length;
            let backed = map.ram().iter().any(|range| range.start <= entry.address && end <= range.end);
            prop_assert!(backed);
        }
        prop_assert_eq!(usable, map.size_bytes() - (layout::EXTENDED_START - layout::CONVENTIONAL_END));
    }
}
