use super::*;

/// Values as the processor manuals' own examples and every boot loader have them.
#[test]
fn descriptors_are_the_well_known_ones() {
    assert_eq!(Segment::CODE_64.descriptor(), 0x00af_9b00_0000_ffff);
    assert_eq!(Segment::CODE_32.descriptor(), 0x00cf_9b00_0000_ffff);
    assert_eq!(Segment::DATA.descriptor(), 0x00cf_9300_0000_ffff);
    assert_eq!(Segment::TSS.descriptor(), 0x0000_8b00_0000_0067);
    assert_eq!(Segment::NO_LDT.descriptor(), 0x0000_0200_0000_0000);
}

#[test]
fn base_and_limit_are_split_over_the_descriptor() {
    let segment = Segment {
        base: 0x1234_5678,
        limit: 0xa_bcde,
        granularity_4k: false,
        privilege_level: 3,
        ..Segment::DATA
    };
    assert_eq!(segment.descriptor(), 0x124a_f334_5678_bcde);
}

#[test]
fn selectors_find_their_descriptors() {
    let at = |table: &[u64; DESCRIPTORS], selector: u16| table[usize::from(selector / 8)];
    assert_eq!(at(&GDT_64, CODE_SELECTOR), Segment::CODE_64.descriptor());
    assert_eq!(at(&GDT_32, CODE_SELECTOR), Segment::CODE_32.descriptor());
    for table in [&GDT_32, &GDT_64] {
        assert_eq!(at(table, DATA_SELECTOR), Segment::DATA.descriptor());
        assert_eq!(at(table, TSS_SELECTOR), Segment::TSS.descriptor());
        let bytes = table_bytes(table);
        assert_eq!(bytes.len(), usize::from(GDT_REGISTER.limit) + 1);
        assert_eq!(bytes[0x10..0x18], table[2].to_le_bytes());
    }
}
