use super::*;
use proptest::prelude::*;

fn entry(number: u32, name: &str) -> Entry {
    let l1 = L1Table {
        offset: u64::from(number) << 16,
        entries: number,
    };
    let disk_bytes = 1 << 20;
    Entry::new(l1, number.to_string(), name.to_owned(), (7, 8), disk_bytes).unwrap()
}

#[test]
fn a_table_is_read_as_it_was_written() {
    let entries = [entry(1, "before"), entry(2, ""), entry(17, "3")];
    let bytes = SnapshotTable::to_bytes(&entries);
    let table = SnapshotTable::parse(&bytes, 3).unwrap();
    assert_eq!(table.entries, entries);
    assert_eq!(table.bytes, u64::try_from(bytes.len()).unwrap());
    assert_eq!(table.find("before"), Some(0));
    assert_eq!(table.find("17"), Some(2));
    assert_eq!(table.find("3"), Some(2));
    assert_eq!(table.find("4"), None);
    assert_eq!(table.next_id(), "18");
    assert_eq!(SnapshotTable::parse(&bytes, 4), None);
    assert_eq!(SnapshotTable::default().next_id(), "1");
}

proptest! {
    #[test]
    fn any_table_is_taken_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(0_u8..40, 8),
        count in 0_u32..6,
    ) {
        // Lengths that fit now and then.
        for (at, size) in [9, 12, 13, 14, 15, 36, 37, 38, 39].into_iter().zip(sizes) {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = if at % 2 == 1 && at != 37 { size } else { 0 };
            }
        }
        if let Some(table) = SnapshotTable::parse(&bytes, count) {
            let again = SnapshotTable::to_bytes(&table.entries);
            prop_assert_eq!(SnapshotTable::parse(&again, count), Some(table));
        }
    }
}
