//! Checking and mending images, against `qemu-img check`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use block::image::{self, CheckReport, Repair};
use block::{Disk, EngineKind, ImageFormat};
use tempfile::TempDir;

use super::{SIZE, change, content, options, pattern, qemu, try_qemu};

const COPIED: u64 = 1 << 63;

fn check(folder: &Path, repair: Repair) -> CheckReport {
    image::check(&folder.join("disk.qcow2"), repair).unwrap()
}

/// What qemu-img's exit status says: 0 clean, 2 errors, 3 leaks.
fn verdict(folder: &Path) -> Option<i32> {
    try_qemu(folder, "check -f qcow2 disk.qcow2").status.code()
}

fn ours(report: &CheckReport) -> Option<i32> {
    Some(match (report.is_damaged(), report.leaked_clusters) {
        (true, _) => 2,
        (false, 0) => 0,
        (false, _) => 3,
    })
}

fn u64_at(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_be_bytes(bytes)
}

fn open(folder: &Path) -> File {
    let path = folder.join("disk.qcow2");
    File::options().read(true).write(true).open(path).unwrap()
}

/// Makes an image with all kinds of clusters, and two snapshots.
fn make(folder: &Path, creation: &str) -> Vec<u8> {
    let mut model = pattern(5, SIZE);
    fs::write(folder.join("source.raw"), &model).unwrap();
    qemu(
        folder,
        &format!("convert -c -f raw -O qcow2 -o {creation} source.raw disk.qcow2"),
    );
    for name in ["one", "two"] {
        if !creation.contains("refcount_bits=1") {
            qemu(folder, &format!("snapshot -c {name} disk.qcow2"));
        }
        let disk = Disk::open(&options(folder.join("disk.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::Sync, 16).unwrap();
        change(&mut engine, &mut model, 8);
    }
    model
}

const CREATIONS: [&str; 6] = [
    "compat=0.10",
    "compat=1.1",
    "cluster_size=512",
    "cluster_size=2M",
    "refcount_bits=1",
    "cluster_size=4k,refcount_bits=64",
];

#[test]
fn what_qemu_finds_clean_is_clean() {
    for creation in CREATIONS {
        let folder = TempDir::new_in(super::MEMORY).unwrap();
        make(folder.path(), creation);
        assert_eq!(verdict(folder.path()), Some(0), "{creation}");
        let report = check(folder.path(), Repair::Nothing);
        assert_eq!(ours(&report), Some(0), "{creation}: {report:?}");
        let before = fs::read(folder.path().join("disk.qcow2")).unwrap();
        for repair in [Repair::Leaks, Repair::All] {
            let report = check(folder.path(), repair);
            assert_eq!((report.mended_errors, report.mended_leaks), (0, 0));
        }
        let after = fs::read(folder.path().join("disk.qcow2")).unwrap();
        assert!(before == after, "a sound image was changed");
    }
    // Bitmaps take clusters of their own.
    let folder = TempDir::new_in(super::MEMORY).unwrap();
    qemu(folder.path(), "create -f qcow2 disk.qcow2 64M");
    qemu(folder.path(), "bitmap --add disk.qcow2 changes");
    assert_eq!(verdict(folder.path()), Some(0));
    let report = check(folder.path(), Repair::Nothing);
    assert_eq!(ours(&report), Some(0), "{report:?}");
}

/// Raises, lowers or clears the count of some clusters, which have 16 bits in one block.
fn spoil_counts(folder: &Path, first: u64, change: impl Fn(u16) -> u16) {
    let file = open(folder);
    let block = u64_at(&file, u64_at(&file, 48));
    for cluster in (first..first + 3).map(|cluster| block + cluster * 2) {
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, cluster).unwrap();
        let count = change(u16::from_be_bytes(bytes));
        file.write_all_at(&count.to_be_bytes(), cluster).unwrap();
    }
}

#[test]
fn leaks_are_given_back() {
    for (creation, cluster_bytes) in [
        ("compat=0.10", 65536),
        ("compat=1.1", 65536),
        ("cluster_size=4k", 4096),
    ] {
        let folder = TempDir::new_in(super::MEMORY).unwrap();
        let folder = folder.path();
        let model = make(folder, creation);
        // Taken and not used, behind all others.
        let file = open(folder);
        let clusters = file.metadata().unwrap().len().div_ceil(cluster_bytes);
        file.set_len((clusters + 3) * cluster_bytes).unwrap();
        spoil_counts(folder, clusters, |_| 1);
        // Counted twice, and not said to be nobody else's: a snapshot that was not finished.
        let l1 = u64_at(&file, 40);
        let l2 = u64_at(&file, l1) & !COPIED;
        let single = (0..512).map(|index| l2 + index * 8);
        let mut single = single.filter(|&at| u64_at(&file, at) & COPIED != 0);
        let single = single.next_back().unwrap();
        let entry = u64_at(&file, single) & !COPIED;
        file.write_all_at(&entry.to_be_bytes(), single).unwrap();
        let count = u64_at(&file, u64_at(&file, 48)) + entry / cluster_bytes * 2;
        file.write_all_at(&[0, 2], count).unwrap();
        assert_eq!(verdict(folder), Some(3));
        let report = check(folder, Repair::Nothing);
        assert_eq!(report.leaked_clusters, 4);
        assert!(!report.is_damaged(), "{report:?}");
        let report = check(folder, Repair::Leaks);
        assert_eq!((report.leaked_clusters, report.mended_leaks), (0, 4));
        assert_eq!(ours(&report), Some(0), "{report:?}");
        assert_eq!(verdict(folder), Some(0), "{creation}");
        assert!(content(folder, "disk.qcow2") == model);
    }
}

#[test]
fn wrong_counts_and_flags_are_mended() {
    for creation in ["compat=0.10", "compat=1.1", "cluster_size=4k"] {
        for spoil in [
            (|count| count - 1) as fn(u16) -> u16,
            |_| 0,
            |count| count + 7,
        ] {
            let folder = TempDir::new_in(super::MEMORY).unwrap();
            let folder = folder.path();
            let model = make(folder, creation);
            // Among them tables of the first level and of reference counts.
            spoil_counts(folder, 1, spoil);
            let found = check(folder, Repair::Nothing);
            assert_eq!(ours(&found), verdict(folder), "{found:?}");
            let report = check(folder, Repair::All);
            assert_eq!(ours(&report), Some(0), "{creation}: {report:?}");
            assert_eq!(verdict(folder), Some(0), "{creation}");
            assert!(content(folder, "disk.qcow2") == model);
            qemu(folder, "convert -l one -f qcow2 -O raw disk.qcow2 one.raw");
            assert!(fs::read(folder.join("one.raw")).unwrap() == pattern(5, SIZE));
        }
    }
}

#[test]
fn lost_reference_counts_are_made_anew() {
    let folder = TempDir::new_in(super::MEMORY).unwrap();
    let folder = folder.path();
    let model = make(folder, "compat=1.1");
    // No block, a block that is nowhere, and a table that is nowhere.
    for (at, value) in [
        (None, 0),
        (None, 1 << 40),
        (None, 0x1_0000),
        (Some(48), 1 << 50),
    ] {
        let file = open(folder);
        let at = at.unwrap_or_else(|| u64_at(&file, 48));
        file.write_all_at(&u64::to_be_bytes(value), at).unwrap();
        let found = check(folder, Repair::Nothing);
        assert!(found.is_damaged(), "{found:?}");
        // Leaks alone are not what is wrong.
        assert!(check(folder, Repair::Leaks).is_damaged());
        let report = check(folder, Repair::All);
        assert_eq!(ours(&report), Some(0), "{report:?}");
        assert_eq!(verdict(folder), Some(0));
        assert!(content(folder, "disk.qcow2") == model);
    }
}

#[test]
fn a_lost_end_of_the_file_is_zero() {
    let folder = TempDir::new_in(super::MEMORY).unwrap();
    let folder = folder.path();
    let mut model = make(folder, "compat=1.1");
    let file = open(folder);
    let length = file.metadata().unwrap().len().next_multiple_of(65536);
    let l2 = u64_at(&file, u64_at(&file, 40)) & !COPIED;
    // A cluster that was taken after the last flush, and of which the mapping alone came to the disk.
    let entry = COPIED | (length + 2 * 65536);
    file.write_all_at(&entry.to_be_bytes(), l2 + 8 * 7).unwrap();
    let found = check(folder, Repair::Nothing);
    assert_eq!(
        (ours(&found), verdict(folder)),
        (Some(2), Some(2)),
        "{found:?}"
    );
    let report = check(folder, Repair::All);
    assert_eq!(ours(&report), Some(0), "{report:?}");
    assert!(report.mended_errors > 0);
    assert_eq!(verdict(folder), Some(0));
    model[7 * 65536..8 * 65536].fill(0);
    assert!(content(folder, "disk.qcow2") == model);
}

#[test]
fn what_would_be_a_guess_is_not_mended() {
    let folder = TempDir::new_in(super::MEMORY).unwrap();
    let folder = folder.path();
    make(folder, "compat=1.1");
    let file = open(folder);
    let l1 = u64_at(&file, 40);
    let l2 = u64_at(&file, l1) & 0x00ff_ffff_ffff_fe00;
    // An entry that leads out of the file, to the header, and one that no image has.
    for value in [
        1 << 63 | 1 << 50,
        1 << 63,
        1 << 63 | 0x200,
        1 << 63 | 0x4_0000 | 4_u64,
    ] {
        let before = u64_at(&file, l2 + 8 * 40);
        let value = if value == 1 << 63 {
            l1 | 1 << 63
        } else {
            value
        };
        file.write_all_at(&value.to_be_bytes(), l2 + 8 * 40)
            .unwrap();
        let found = check(folder, Repair::Nothing);
        assert_eq!(ours(&found), Some(2), "{value:#x} {found:?}");
        assert_eq!(verdict(folder), Some(2));
        let bytes = fs::read(folder.join("disk.qcow2")).unwrap();
        let report = check(folder, Repair::All);
        assert!(report.is_damaged() && report.mended_errors == 0);
        assert!(fs::read(folder.join("disk.qcow2")).unwrap() == bytes);
        file.write_all_at(&before.to_be_bytes(), l2 + 8 * 40)
            .unwrap();
    }
    assert_eq!(ours(&check(folder, Repair::Nothing)), Some(0));
    // A mark without a reason goes.
    file.write_all_at(&[2], 79).unwrap();
    assert_eq!(ours(&check(folder, Repair::Nothing)), Some(2));
    assert_eq!(ours(&check(folder, Repair::All)), Some(0));
    assert_eq!(ours(&check(folder, Repair::Nothing)), Some(0));
    // In use.
    let disk = Disk::open(&options(folder.join("disk.qcow2"))).unwrap();
    for repair in [Repair::Nothing, Repair::All] {
        let refused = image::check(&folder.join("disk.qcow2"), repair).unwrap_err();
        assert!(refused.to_string().contains("another machine"), "{refused}");
    }
    drop(disk);
    // No image.
    fs::write(folder.join("disk.qcow2"), [0; 4096]).unwrap();
    let refused = image::check(&folder.join("disk.qcow2"), Repair::All).unwrap_err();
    assert!(refused.to_string().contains("no qcow2 image"), "{refused}");
    assert!(image::info(&folder.join("disk.qcow2"), ImageFormat::Auto).is_ok());
}
