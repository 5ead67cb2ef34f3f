use super::*;
use proptest::prelude::*;
use std::io::Write;

/// The head of an image with clusters of 512 bytes, and a table of reference counts behind it.
fn head() -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    for (at, value) in [
        (VERSION, 3),
        (CLUSTER_BITS, 9),
        (L1_ENTRIES, 1),
        (REFCOUNT_TABLE + 4, 512),
        (REFCOUNT_TABLE_CLUSTERS, 1),
        (HEADER_LENGTH, 104),
        (104, FEATURE_NAMES),
        (108, 48),
        (512 + 4, 0x600),
    ] {
        set(&mut bytes, at, value);
    }
    bytes[..4].copy_from_slice(&MAGIC);
    bytes
}

fn set(bytes: &mut [u8], at: u64, value: u32) {
    let at = usize::try_from(at).unwrap();
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn checked(bytes: &[u8], writable: bool) -> Result<(), String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    check(&file, writable).map_err(|error| error.to_string())
}

#[test]
fn heads_that_the_library_does_not_live_through_are_refused() {
    assert_eq!(checked(&head(), true), Ok(()));
    for (at, value, said) in [
        (L1_ENTRIES, L1_ENTRIES_MAX + 1, "mappings"),
        (CLUSTER_BITS, 22, "clusters"),
        (CLUSTER_BITS, u32::MAX, "clusters"),
        (REFCOUNT_TABLE_CLUSTERS, u32::MAX, "table of reference"),
        (108, 49, "feature"),
        (REFCOUNT_TABLE_CLUSTERS, 0, "no reference count"),
        (512 + 4, 0, "no reference count"),
        (REFCOUNT_TABLE, u32::MAX, "no reference count"),
        (REFCOUNT_TABLE, 1 << 20, "no reference count"),
    ] {
        let mut bytes = head();
        set(&mut bytes, at, value);
        let refused = checked(&bytes, true).unwrap_err();
        assert!(refused.contains(said), "{refused}");
        let only_for_writing = said == "no reference count";
        assert_eq!(checked(&bytes, false).is_ok(), only_for_writing);
    }
    // What is no image is the library's business.
    assert_eq!(checked(b"", true), Ok(()));
    assert_eq!(checked(&[0; 600], true), Ok(()));
}

proptest! {
    #[test]
    fn any_head_is_taken_or_refused(
        changes in prop::collection::vec((0_u64..140, any::<u32>()), 0..6),
        length in 0_usize..1024,
    ) {
        let mut bytes = head();
        for (at, value) in changes {
            set(&mut bytes, at, value);
        }
        bytes[..4].copy_from_slice(&MAGIC);
        for writable in [false, true] {
            let _taken_or_refused = checked(&bytes[..length], writable);
        }
    }
}
