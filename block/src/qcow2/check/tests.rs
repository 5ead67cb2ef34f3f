use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::image::{self, CreateOptions};
use crate::{CacheMode, Disk, DiskOptions, EngineKind, ImageFormat, IoBuffer, Operation};

const DISK_BYTES: usize = 96 << 10;

fn options(path: &Path) -> DiskOptions {
    DiskOptions {
        format: ImageFormat::Qcow2,
        cache: CacheMode::Unsafe,
        ..DiskOptions::new(path)
    }
}

fn transfer(options: DiskOptions, bytes: &mut [u8], is_write: bool) -> bool {
    let Ok(disk) = Disk::open(&options) else {
        return false;
    };
    let mut engine = disk.engine(EngineKind::Sync, 1).unwrap();
    // SAFETY: the bytes are not used before the request has completed.
    let buffers = &[unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }];
    let (sector, durable) = (3, false);
    engine.submit(
        0,
        match is_write {
            true => Operation::Write {
                sector,
                buffers,
                durable,
            },
            false => Operation::Read { sector, buffers },
        },
    );
    engine.next_completion().unwrap().result.is_ok()
}

/// A small image with a snapshot, and with what was written before and after it.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        let path = folder.path().join("disk.qcow2");
        let create = CreateOptions {
            format: ImageFormat::Qcow2,
            size_bytes: Some(u64::try_from(DISK_BYTES).unwrap()),
            cluster_bytes: Some(512),
            ..CreateOptions::default()
        };
        image::create(&path, &create).unwrap();
        assert!(transfer(options(&path), &mut [1; 20 << 10], true));
        image::create_snapshot(&path, "before").unwrap();
        assert!(transfer(options(&path), &mut [2; 5 << 10], true));
        fs::read(&path).unwrap()
    })
}

fn is_sound(path: &Path, repair: Repair) -> bool {
    let report = image::check(path, repair).unwrap();
    !report.is_damaged() && report.leaked_clusters == 0
}

#[test]
fn the_image_is_sound_before_anything_is_done_to_it() {
    let folder = TempDir::new_in("/dev/shm").unwrap();
    let path = folder.path().join("disk.qcow2");
    fs::write(&path, image()).unwrap();
    assert!(is_sound(&path, Repair::Nothing));
    for (snapshot, value) in [(None, 2), (Some("before".to_owned()), 1)] {
        let options = DiskOptions {
            readonly: true,
            snapshot,
            ..options(&path)
        };
        let mut bytes = [0; 5 << 10];
        assert!(transfer(options, &mut bytes, false));
        assert_eq!(bytes, [value; 5 << 10]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever an image has where numbers were: it is checked in bounded time, what was mended is sound, and
    /// it stays so whatever is done with it.
    #[test]
    fn what_was_mended_is_sound_and_stays_so(
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                Just(0), Just(u64::MAX), any::<u64>(),
                (0_u64..200).prop_map(|cluster| cluster * 512),
                (0_u64..200).prop_map(|cluster| (1 << 63) | (cluster * 512)),
                (0_u64..200).prop_map(|cluster| (1 << 62) | (cluster * 300)),
                (0_u64..3).prop_map(|count| count * 0x0001_0001_0001_0001),
            ], any::<bool>()),
            0..6,
        ),
    ) {
        let folder = TempDir::new_in("/dev/shm").unwrap();
        let path = folder.path().join("disk.qcow2");
        fs::write(&path, image()).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        for (index, value, is_in_header) in changes {
            let words = if is_in_header { 14 } else { image().len() / 8 };
            let at = u64::try_from(index.index(words) * 8).unwrap();
            file.write_all_at(&value.to_be_bytes(), at).unwrap();
        }
        let Ok(report) = image::check(&path, Repair::All) else {
            return Ok(());
        };
        if report.is_damaged() || report.leaked_clusters > 0 {
            // Nothing that was a guess.
            prop_assert_eq!(report.mended_errors, 0);
            return Ok(());
        }
        prop_assert!(!report.is_dirty && is_sound(&path, Repair::Nothing));
        let mut before = vec![0; 20 << 10];
        // Among the changes may be some that the library refuses.
        if !transfer(options(&path), &mut before, false) {
            return Ok(());
        }
        if image::create_snapshot(&path, "a new name").is_err() {
            return Ok(());
        }
        prop_assert!(is_sound(&path, Repair::Nothing));
        let _written_or_refused = transfer(options(&path), &mut [3; 9 << 10], true);
        prop_assert!(is_sound(&path, Repair::Nothing));
        image::apply_snapshot(&path, "a new name").unwrap();
        prop_assert!(is_sound(&path, Repair::Nothing));
        let mut after = vec![0; 20 << 10];
        prop_assert!(transfer(options(&path), &mut after, false));
        prop_assert!(before == after);
        image::delete_snapshot(&path, "a new name").unwrap();
        prop_assert!(is_sound(&path, Repair::Nothing));
    }
}
