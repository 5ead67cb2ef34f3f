use proptest::prelude::*;

use super::*;
use crate::test_images::{MIB, file};

#[test]
fn bad_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let message = |path: &Path| InitrdFile::open(path).unwrap_err().to_string();
    let text = message(directory.path());
    assert!(
        text.ends_with("it is a directory: give a regular file"),
        "{text}"
    );
    let text = message(&directory.path().join("missing"));
    assert!(
        text.contains("missing: there is no such file: check the path"),
        "{text}"
    );
    let text = message(file(&[]).path());
    assert!(text.contains("it is empty"), "{text}");
    let text = message(Path::new("/dev/null"));
    assert!(text.contains("a device"), "{text}");
}

#[test]
fn a_file_that_shrank_is_an_error() {
    let file = file(&[1; 9000]);
    let initrd = InitrdFile::open(file.path()).unwrap();
    assert_eq!(initrd.length_bytes(), 9000);
    file.as_file().set_len(100).unwrap();
    let memory = crate::test_images::memory(16 * MIB);
    let map = MemoryMap::new(16 * MIB, 52).unwrap();
    let error = initrd
        .load(&memory, &map, &(MIB..2 * MIB), u64::MAX)
        .unwrap_err();
    assert!(
        matches!(
            error.problem,
            InitrdProblem::Read {
                length_bytes: 9000,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_highest_place_is_taken_and_the_gap_below_the_kernel_when_it_must_be() {
    let kernel = 16 * MIB..48 * MIB;
    assert_eq!(
        place(1, &kernel, 64 * MIB),
        Ok(GuestAddress(64 * MIB - 4096))
    );
    assert_eq!(
        place(16 * MIB, &kernel, 64 * MIB),
        Ok(GuestAddress(48 * MIB))
    );
    assert_eq!(place(15 * MIB, &kernel, 48 * MIB), Ok(GuestAddress(MIB)));
    assert_eq!(place(16 * MIB + 1, &kernel, 64 * MIB), Err(16 * MIB));
    assert_eq!(place(1, &kernel, 0), Err(0));
}

proptest! {
    #[test]
    fn a_place_is_a_page_in_bounds_beside_the_kernel(
        length in 1u64..1 << 33,
        start in 0u64..1 << 33,
        size in 0u64..1 << 33,
        limit in 0u64..1 << 33,
    ) {
        let kernel = start..start + size;
        if let Ok(address) = place(length, &kernel, limit) {
            let end = address.0 + length;
            prop_assert_eq!(address.0 % 4096, 0);
            prop_assert!(address.0 >= MIB && end <= limit);
            prop_assert!(end <= kernel.start || address.0 >= kernel.end);
        }
    }
}
