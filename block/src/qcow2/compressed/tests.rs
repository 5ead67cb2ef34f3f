use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_frame_is_unpacked_whatever_is_behind_it(
        byte: u8,
        length in 512_usize..5000,
        behind in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let bytes: Vec<u8> = (0..length).map(|index| byte ^ u8::try_from(index % 7).unwrap()).collect();
        let mut packed = zstd::bulk::compress(&bytes, 3).unwrap();
        let end = packed.len();
        packed.extend(behind);
        let mut unpacked = vec![0; length];
        unpack(&packed, &mut unpacked).unwrap();
        prop_assert!(unpacked == bytes);
        // All of it, and no more.
        unpack(&packed, &mut unpacked[1..]).unwrap_err();
        unpack(&packed, &mut vec![0; length + 1]).unwrap_err();
        unpack(&packed[..end - 1], &mut unpacked).unwrap_err();
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_frame in any::<bool>(),
    ) {
        if is_frame && bytes.len() > 4 {
            bytes[..4].copy_from_slice(&[0x28, 0xb5, 0x2f, 0xfd]);
        }
        let _taken_or_refused = unpack(&bytes, &mut [0; 512]);
    }
}
