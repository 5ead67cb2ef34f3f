use proptest::prelude::*;

use super::*;
use crate::test_images::{KERNEL_ADDRESS, elf, kernel, load_segment, pvh_note, set};

fn parse(image: &[u8]) -> Result<ElfImage, ElfError> {
    let length = image.len() as u64;
    let header = ElfHeader::parse(image, length)?;
    let table = crate::image::bytes_at(image, &header.table()).unwrap();
    header.program_headers(table, length)
}

fn parse_with(offset: usize, value: u64, bytes: usize) -> Result<ElfImage, ElfError> {
    let mut image = kernel(true);
    set(&mut image, offset, value, bytes);
    parse(&image)
}

#[test]
fn headers_say_what_to_load() {
    let image = parse(&kernel(true)).unwrap();
    assert_eq!(image.entry, KERNEL_ADDRESS + 8);
    assert_eq!(image.segments.len(), 2);
    assert_eq!(image.segments[1].file, 0x6000..0x6000 + 5000);
    assert_eq!(image.segments[1].end(), KERNEL_ADDRESS + 0x10_8000);
    assert!(image.holds(KERNEL_ADDRESS + 0x10_7fff));
    assert!(!image.holds(KERNEL_ADDRESS + 0x10_8000));
    assert_eq!(image.notes.len(), 1);
}

#[test]
fn what_is_no_kernel_is_told_apart() {
    let text = |result: Result<ElfImage, ElfError>| result.unwrap_err().to_string();
    assert!(text(parse_with(4, 1, 1)).contains("32-bit ELF file (machine x86-64)"));
    assert!(text(parse_with(4, 9, 1)).contains("class 9"));
    assert!(text(parse_with(5, 2, 1)).contains("big-endian"));
    assert!(text(parse_with(0x12, 183, 2)).contains("for AArch64"));
    assert!(text(parse_with(0x10, 1, 2)).contains("an object file"));
    assert!(text(parse_with(0x10, 4, 2)).contains("a core dump"));
    assert!(text(parse_with(0x10, 7, 2)).contains("type 0x7 at offset 0x10"));
    assert!(text(parse_with(0x36, 32, 2)).contains("program header 0x20 at offset 0x36"));
    assert!(text(parse_with(0x38, 0, 2)).contains("no segment to load"));
    assert!(text(parse_with(0x38, 0xffff, 2)).contains("number of program headers"));
    assert!(text(parse_with(64, 3, 4)).contains("program for an operating system"));
    // The size in memory of the second segment, smaller than that in the file.
    assert!(text(parse_with(64 + 56 + 0x28, 1, 8)).contains("memory 0x1 at offset 0xa0"));
    assert!(text(parse_with(64 + 0x18, u64::MAX, 8)).contains("physical address"));
}

#[test]
fn truncation_names_the_part() {
    let image = kernel(true);
    let what = |length: usize| {
        let length = length as u64;
        let header = ElfHeader::parse(&image[..usize::try_from(length).unwrap()], length)?;
        let table = crate::image::bytes_at(&image, &header.table()).unwrap();
        header.program_headers(table, length)
    };
    let truncated = |what, end, length| ElfError::Truncated { what, end, length };
    assert_eq!(what(20), Err(truncated(What::Header, 64, 20)));
    assert_eq!(what(100), Err(truncated(What::ProgramHeaders, 232, 100)));
    assert_eq!(
        what(0x6100),
        Err(truncated(What::Segment(1), 0x6000 + 5000, 0x6100))
    );
    assert_eq!(what(3), Err(ElfError::NotElf));
    assert!(what(image.len()).is_ok());
}

#[test]
fn the_pvh_entry_is_found_among_other_notes() {
    let note = pvh_note(0x100, 0x1234);
    let segment = NoteSegment::new(0x100..0x100 + note.bytes.len() as u64, 4);
    assert_eq!(pvh_entry(&segment, &note.bytes), Ok(Some(0x1234)));
    // Eight bytes, as Linux on x86-64 writes them.
    let mut wide = [4u32, 8, 18].map(u32::to_le_bytes).concat();
    wide.extend_from_slice(b"Xen\0\x78\x56\x34\x12\0\0\0\0");
    assert_eq!(pvh_entry(&segment, &wide), Ok(Some(0x1234_5678)));
    let eight = NoteSegment::new(0..24, 8);
    assert_eq!(pvh_entry(&eight, &wide), Ok(Some(0x1234_5678)));
    // Cut off, too wide, of a strange size.
    for damage in [wide[..20].to_vec(), {
        let mut high = wide.clone();
        high[23] = 1;
        high
    }] {
        assert!(matches!(
            pvh_entry(&segment, &damage),
            Err(ElfError::PvhNote {
                offset: 0x100,
                length: 8
            })
        ));
    }
    wide[4] = 2;
    assert!(matches!(
        pvh_entry(&segment, &wide),
        Err(ElfError::PvhNote { length: 2, .. })
    ));
    wide[8] = 17;
    assert_eq!(pvh_entry(&segment, &wide), Ok(None));
    assert_eq!(pvh_entry(&segment, &[]), Ok(None));
}

#[test]
fn notes_that_are_too_long_are_not_kept() {
    let mut note = pvh_note(0x1000, 1);
    note.bytes.resize(65 << 10, 0);
    let image = elf(1, &[load_segment(0x200, 0x10_0000, vec![1; 8]), note]);
    assert_eq!(parse(&image).unwrap().notes, []);
}

proptest! {
    #[test]
    fn any_notes_are_walked_to_an_end(bytes in proptest::collection::vec(prop_oneof![0u8..20, any::<u8>()], 0..200), align in 0u64..16) {
        let segment = NoteSegment::new(0..bytes.len() as u64, align);
        if let Ok(Some(_)) = pvh_entry(&segment, &bytes) {
            prop_assert!(bytes.windows(4).any(|window| window == b"Xen\0"));
        }
    }
}
