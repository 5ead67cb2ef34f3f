use proptest::prelude::*;

use super::*;

/// Walks the tables as a processor does.
fn translate(tables: &[u8], address: u64) -> Option<u64> {
    let read = |table: u64, index: u64| {
        let offset = usize::try_from(table - layout::PAGE_TABLES.start + index * 8).unwrap();
        u64::from_le_bytes(tables[offset..offset + 8].try_into().unwrap())
    };
    let mut table = layout::PAGE_TABLES.start;
    for shift in [39, 30] {
        let entry = read(table, address >> shift & 0x1ff);
        if entry & 3 != 3 {
            return None;
        }
        assert_eq!(entry & PAGE_SIZE, 0);
        table = entry & !0xfff;
    }
    let entry = read(table, address >> 21 & 0x1ff);
    (entry & 0x83 == 0x83).then_some((entry & !0x1f_ffff) + (address & 0x1f_ffff))
}

#[test]
fn three_pages_are_enough_for_a_usual_kernel() {
    let tables = identity_map(0x400_0000).unwrap();
    assert_eq!(tables.len(), 3 * TABLE_BYTES);
    assert_eq!(translate(&tables, GIB - 1), Some(GIB - 1));
    assert_eq!(translate(&tables, GIB), None);
}

#[test]
fn the_largest_map_fits_its_place() {
    let tables = identity_map(MAPPED_MAXIMUM).unwrap();
    let place = layout::PAGE_TABLES.end - layout::PAGE_TABLES.start;
    assert_eq!(tables.len() as u64, place);
    assert!(identity_map(MAPPED_MAXIMUM + 1).is_err());
}

proptest! {
    #[test]
    fn what_is_asked_for_is_mapped_onto_itself(end in 1..=MAPPED_MAXIMUM, any in any::<u64>()) {
        let tables = identity_map(end).unwrap();
        let address = any % end;
        prop_assert_eq!(translate(&tables, address), Some(address));
        prop_assert_eq!(translate(&tables, end - 1), Some(end - 1));
        prop_assert_eq!(translate(&tables, MAPPED_MAXIMUM), None);
    }
}
