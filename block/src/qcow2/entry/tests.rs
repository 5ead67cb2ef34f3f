use super::*;
use proptest::prelude::*;

#[test]
fn entries_say_what_the_specification_gives_them() {
    let cluster = |offset| Mapping::Cluster { offset };
    for (entry, version, expected) in [
        (0, 3, Mapping::Nothing),
        (COPIED, 3, Mapping::Nothing),
        (ZERO, 3, Mapping::Nothing),
        (ZERO, 2, Mapping::Invalid),
        (0x5_0000, 2, cluster(0x5_0000)),
        (COPIED | 0x5_0000 | ZERO, 3, cluster(0x5_0000)),
        (0x5_0200, 3, Mapping::Invalid),
        (0x5_0000 | 2, 3, Mapping::Invalid),
        (0x5_0000 | 1 << 57, 3, Mapping::Invalid),
        (COMPRESSED | COPIED | 0x5_0000, 3, Mapping::Invalid),
        // 54 bits of offset with clusters of 64 KiB: three sectors, from the middle of the first on.
        (
            COMPRESSED | 2 << 54 | 0x5_0100,
            3,
            Mapping::Compressed {
                offset: 0x5_0100,
                length: 3 * 512 - 0x100,
            },
        ),
    ] {
        assert_eq!(mapping(entry, version, 16), expected, "{entry:#x}");
    }
    assert_eq!(l2_table(COPIED | 0x3_0000, 16), Some(0x3_0000));
    for entry in [0, COPIED, 0x3_0200, 0x3_0001, COMPRESSED | 0x3_0000] {
        assert_eq!(l2_table(entry, 16), None);
    }
}

proptest! {
    #[test]
    fn any_entry_means_something_bounded(entry: u64, version in 2_u32..4, cluster_bits in 9_u32..22) {
        match mapping(entry, version, cluster_bits) {
            Mapping::Cluster { offset } => prop_assert!(offset.is_multiple_of(1 << cluster_bits)),
            Mapping::Compressed { offset, length } => {
                prop_assert!(length > 0 && length <= 2 << cluster_bits);
                prop_assert!(offset < 1 << 61);
            }
            Mapping::Nothing | Mapping::Invalid => {}
        }
        if let Some(offset) = l2_table(entry, cluster_bits) {
            prop_assert!(offset != 0 && offset.is_multiple_of(1 << cluster_bits));
        }
    }
}
