use proptest::prelude::*;

use super::*;
use crate::elf::ElfHeader;
use crate::test_images::{KERNEL_ADDRESS, MIB, code, elf, load_segment, memory, pvh_note, read};

#[test]
fn runs_of_zero_pages_are_left_out() {
    let memory = memory(2 * MIB);
    let before = vec![7; 6 * PAGE_BYTES];
    memory.write_slice(&before, GuestAddress(MIB)).unwrap();
    let mut bytes = code(5 * PAGE_BYTES + 100, 1);
    bytes[..PAGE_BYTES].fill(0);
    bytes[2 * PAGE_BYTES..4 * PAGE_BYTES].fill(0);
    bytes[5 * PAGE_BYTES..].fill(0);
    write_fresh(&memory, GuestAddress(MIB), &bytes).unwrap();
    for page in [0, 2, 3, 5] {
        bytes[page * PAGE_BYTES..]
            .iter_mut()
            .take(PAGE_BYTES)
            .for_each(|byte| *byte = 7);
    }
    assert!(read(&memory, MIB, bytes.len()) == bytes);
}

#[test]
fn bytes_at_the_head_are_all_there_or_none() {
    assert_eq!(bytes_at(b"abcdef", &(1..3)), Some(&b"bc"[..]));
    assert_eq!(bytes_at(b"abcdef", &(5..7)), None);
    assert_eq!(bytes_at(b"abcdef", &(u64::MAX - 1..u64::MAX)), None);
}

proptest! {
    #[test]
    fn pieces_of_any_size_in_any_order_make_the_same_image(
        cuts in proptest::collection::vec(0usize..40_000, 0..12),
        backwards: bool,
    ) {
        let segments = [
            load_segment(0x1000, KERNEL_ADDRESS, code(10_000, 1)),
            load_segment(0x4000, KERNEL_ADDRESS + 0x3000, code(4096, 2)),
            load_segment(0x5000, KERNEL_ADDRESS + 0x8000, code(9000, 3)),
            // In the middle of a segment, as Linux has it.
            pvh_note(0x6001, 0x100_0010),
        ];
        let image = elf(KERNEL_ADDRESS, &segments);
        let length = image.len() as u64;
        let header = ElfHeader::parse(&image, length).unwrap();
        let table = bytes_at(&image, &header.table()).unwrap();
        let memory = memory(32 * MIB);
        let layout = ImageLayout::new(&memory, header.program_headers(table, length).unwrap());

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(image.len())).collect();
        cuts.extend([0, image.len()]);
        cuts.sort_unstable();
        let mut pieces: Vec<(usize, usize)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
        if backwards {
            pieces.reverse();
        }
        for (start, end) in pieces {
            layout.place(start as u64, &image[start..end]).unwrap();
        }
        let (parsed, entry) = layout.finish().unwrap();
        prop_assert_eq!(entry, Some(0x100_0010));
        prop_assert_eq!(parsed.segments.len(), 3);
        for segment in &parsed.segments {
            let start = usize::try_from(segment.file.start).unwrap();
            let end = usize::try_from(segment.file.end).unwrap();
            prop_assert!(read(&memory, segment.address, end - start) == image[start..end]);
        }
    }
}
