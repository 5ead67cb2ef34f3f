use super::*;
use proptest::prelude::*;

#[test]
fn narrow_counts_fill_a_byte_from_its_lowest_bit_on() {
    let blocks = |order| Blocks {
        order,
        cluster_bits: 9,
    };
    let mut block = vec![0; 512];
    blocks(0).set(&mut block, 9, 1);
    assert_eq!(block[1], 2);
    blocks(2).set(&mut block, 1, 0xf);
    assert_eq!(block[0], 0xf0);
    blocks(4).set(&mut block, 1, 0x1234);
    assert_eq!(block[2..4], [0x12, 0x34]);
    blocks(6).set(&mut block, 1, 5);
    assert_eq!(block[8..16], 5_u64.to_be_bytes());
    for (order, counts, most) in [(0, 4096, 1), (3, 512, 255), (6, 64, u64::MAX)] {
        assert_eq!(
            (blocks(order).counts(), blocks(order).most()),
            (counts, most)
        );
    }
}

proptest! {
    #[test]
    fn a_count_that_is_set_is_there_and_no_other_changes(
        order in 0_u32..7,
        values in prop::collection::vec((0_u64..64, any::<u64>()), 1..40),
    ) {
        let blocks = Blocks { order, cluster_bits: 9 };
        let mut block = vec![0; 512];
        let mut model = [0; 64];
        for (index, value) in values {
            let value = value & blocks.most();
            blocks.set(&mut block, index, value);
            model[usize::try_from(index).unwrap()] = value;
            for (index, value) in (0..).zip(model) {
                prop_assert_eq!(blocks.get(&block, index), value);
            }
        }
    }
}
