use super::*;
use crate::test_images::{CODE_OFFSET, PAYLOAD_OFFSET, bzimage, set};

fn parse_with(offset: usize, value: u64, bytes: usize) -> Result<BzImage, BzImageError> {
    let mut image = bzimage(&[1; 4096]);
    set(&mut image, offset, value, bytes);
    BzImage::parse(&image[..HEAD_BYTES], image.len() as u64)
}

#[test]
fn the_parts_are_found() {
    let image = parse_with(0x1f1, 4, 1).unwrap();
    let length = (CODE_OFFSET + PAYLOAD_OFFSET + 4096) as u64;
    assert_eq!(image.code, CODE_OFFSET as u64..length);
    let payload = (CODE_OFFSET + PAYLOAD_OFFSET) as u64..length;
    assert_eq!(image.payload_range(length), Ok(Some(payload)));
    // Without a number of sectors there are four.
    assert_eq!(parse_with(0x1f1, 0, 1).unwrap().code, image.code);
    let without = parse_with(0x24c, 0, 4).unwrap();
    assert_eq!(without.payload_range(length), Ok(None));
}

#[test]
fn what_cannot_be_started_is_named() {
    let text = |result: Result<BzImage, BzImageError>| result.unwrap_err().to_string();
    assert!(text(parse_with(0x206, 0x20b, 2)).contains("version 2.11 of the boot protocol"));
    assert!(text(parse_with(0x211, 0, 1)).contains("zImage"));
    assert!(text(parse_with(0x236, 0x3e, 2)).contains("32-bit kernel"));
    assert!(text(parse_with(0x230, 3, 4)).contains("kernel alignment 0x3 at offset 0x230"));
    assert!(text(parse_with(0x230, 0, 4)).contains("kernel alignment"));
    let text = text(parse_with(0x1f4, 0xffff_ffff, 4));
    assert!(
        text.contains("protected-mode code ends at offset 0x10000009f0"),
        "{text}"
    );
}

#[test]
fn truncation_names_the_part() {
    let image = bzimage(&[1; 4096]);
    let text = BzImage::parse(&image[..0x220], 0x220)
        .unwrap_err()
        .to_string();
    assert!(text.contains("the header ends at offset 0x26c"), "{text}");
    let parsed = BzImage::parse(&image, image.len() as u64).unwrap();
    let error = parsed.payload_range(image.len() as u64 - 1).unwrap_err();
    assert!(matches!(
        error,
        BzImageError::Truncated {
            what: "the payload",
            ..
        }
    ));
}

#[test]
fn fields_behind_the_end_of_the_header_are_not_there() {
    // A header that ends before init_size.
    let image = parse_with(0x201, 0x260 - 0x202, 1).unwrap();
    assert_eq!({ image.header.init_size }, 0);
    assert_ne!({ image.header.pref_address }, 0);
}
