use super::*;

const MIB: u64 = 1 << 20;

fn segment(index: usize, address: u64, memory_bytes: u64) -> Segment {
    Segment {
        index,
        file: 0..0,
        address,
        memory_bytes,
    }
}

#[test]
fn free_ram_is_free() {
    let map = MemoryMap::new(64 * MIB, 52).unwrap();
    let segments = [segment(0, 32 * MIB, MIB), segment(1, MIB, MIB)];
    assert_eq!(check_segments(&segments, &map), Ok(MIB..33 * MIB));
    assert_eq!(check(&(0x3_0000..0x9_fc00), &map), Ok(()));
    assert_eq!(check(&(MIB..64 * MIB), &map), Ok(()));
}

#[test]
fn what_is_not_free_is_named() {
    let map = MemoryMap::new(64 * MIB, 52).unwrap();
    assert_eq!(
        check(&(MIB..64 * MIB + 1), &map),
        Err(PlacementError::TooLittleMemory {
            end: 64 * MIB + 1,
            have_mib: 64,
            needed_mib: 65
        })
    );
    assert!(matches!(
        check(&(0x2_f000..0x3_0001), &map),
        Err(PlacementError::Reserved {
            reserved_end: 0x3_0000,
            ..
        })
    ));
    assert!(matches!(
        check(&(0xf_ffff..MIB + 1), &map),
        Err(PlacementError::Reserved {
            reserved_end: MIB,
            ..
        })
    ));
    assert!(matches!(
        check(&(0xbfff_f000..0xc000_1000), &map),
        Err(PlacementError::Outside { .. })
    ));
    assert!(matches!(
        check(&(u64::MAX - 1..u64::MAX), &map),
        Err(PlacementError::Outside { .. })
    ));
}

#[test]
fn segments_are_apart() {
    let map = MemoryMap::new(64 * MIB, 52).unwrap();
    let segments = [
        segment(0, 3 * MIB, MIB),
        segment(1, MIB, MIB),
        segment(2, 2 * MIB, MIB + 1),
    ];
    assert_eq!(
        check_segments(&segments, &map),
        Err(PlacementError::Overlap {
            first: 2,
            second: 0,
            address: 3 * MIB
        })
    );
}

#[test]
fn memory_above_four_gib_is_no_place_for_what_crosses_the_hole() {
    let map = MemoryMap::new(8 << 30, 52).unwrap();
    assert_eq!(check(&(4 << 30..5 << 30), &map), Ok(()));
    assert!(matches!(
        check(&(MIB..5 << 30), &map),
        Err(PlacementError::Outside { .. })
    ));
}
