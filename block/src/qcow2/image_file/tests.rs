use super::*;
use proptest::prelude::*;

fn fields() -> Fields {
    Fields {
        features: Some(AtomicU64::new(0x1122_3344_5566_7788)),
        size_bytes: Some(AtomicU64::new(5)),
        shown: vec![(INCOMPATIBLE, vec![0; 8]), (SIZE, vec![9; 8])],
    }
}

proptest! {
    /// However a header is cut into requests, what is written keeps what the file has, and what is
    /// read shows the rest.
    #[test]
    fn fields_are_shown_and_kept_in_any_piece(from in 0_usize..120, length in 0_usize..120) {
        let fields = fields();
        let (mut kept, mut shown) = (vec![0xaa; 240], vec![0xaa; 240]);
        fields.keep(&mut kept, 0);
        fields.show(&mut shown, 0);
        prop_assert_eq!(&kept[72..80], 0x1122_3344_5566_7788_u64.to_be_bytes());
        prop_assert_eq!(&kept[24..32], 5_u64.to_be_bytes());
        let is_field = |at: usize| (72..80).contains(&at) || (24..32).contains(&at);
        let other_bytes = (0..kept.len()).filter(|&at| !is_field(at));
        let are_untouched = other_bytes.map(|at| kept[at]).all(|byte| byte == 0xaa);
        prop_assert!(are_untouched);
        let offset = u64::try_from(from).unwrap();
        let mut piece = vec![0xaa; length];
        fields.keep(&mut piece, offset);
        prop_assert_eq!(&piece, &kept[from..from + length]);
        let mut piece = vec![0xaa; length];
        fields.show(&mut piece, offset);
        prop_assert_eq!(&piece, &shown[from..from + length]);
    }
}
