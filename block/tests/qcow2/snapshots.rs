//! Internal snapshots, against `qemu-img snapshot` and `convert -l`.

use std::fs;
use std::path::Path;

use block::image::{self, Repair};
use block::{Disk, EngineKind};
use tempfile::TempDir;

use super::{SIZE, change, content, options, pattern, qemu};

/// Changes the disk.
fn go_on(folder: &Path, model: &mut [u8], seed: u64) {
    let disk = Disk::open(&options(folder.join("disk.qcow2"))).unwrap();
    let mut engine = disk.engine(EngineKind::IoUring, 16).unwrap();
    change(&mut engine, model, seed);
}

/// Both find the image sound.
fn check(folder: &Path) {
    qemu(folder, "check disk.qcow2");
    let report = image::check(&folder.join("disk.qcow2"), Repair::Nothing).unwrap();
    assert!(!report.is_damaged() && !report.is_dirty, "{report:?}");
    assert_eq!(report.leaked_clusters, 0);
}

/// What qemu-img reads in a snapshot.
fn snapshot(folder: &Path, name: &str) -> Vec<u8> {
    qemu(
        folder,
        &format!("convert -l snapshot.name={name} -f qcow2 -O raw disk.qcow2 snapshot.raw"),
    );
    fs::read(folder.join("snapshot.raw")).unwrap()
}

#[test]
fn snapshots_are_taken_gone_back_to_and_given_up() {
    for creation in [
        "compat=0.10",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "cluster_size=4k",
    ] {
        let folder = TempDir::new_in(super::MEMORY).unwrap();
        let folder = folder.path();
        let path = folder.join("disk.qcow2");
        let first = pattern(91, SIZE);
        fs::write(folder.join("source.raw"), &first).unwrap();
        qemu(
            folder,
            &format!("convert -c -f raw -O qcow2 -o {creation} source.raw disk.qcow2"),
        );
        let mut model = first.clone();
        image::create_snapshot(&path, "first").unwrap();
        check(folder);
        go_on(folder, &mut model, 3);
        check(folder);
        assert!(content(folder, "disk.qcow2") == model);
        assert!(snapshot(folder, "first") == first);
        // One of qemu-img's beside it.
        qemu(folder, "snapshot -c second disk.qcow2");
        let second = model.clone();
        go_on(folder, &mut model, 4);
        let found = image::snapshots(&path).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|entry| (&*entry.id, &*entry.name))
            .collect();
        assert_eq!(names, [("1", "first"), ("2", "second")]);
        assert!(found.iter().all(|entry| entry.seconds > 1_500_000_000));
        assert!(found.iter().all(|entry| entry.disk_bytes == SIZE as u64));
        let listed = qemu(folder, "snapshot -l disk.qcow2");
        assert!(
            listed.contains("first") && listed.contains("second"),
            "{listed}"
        );
        // Back and forth, by both.
        image::apply_snapshot(&path, "first").unwrap();
        check(folder);
        assert!(content(folder, "disk.qcow2") == first);
        model = first.clone();
        go_on(folder, &mut model, 5);
        check(folder);
        assert!(snapshot(folder, "first") == first && snapshot(folder, "second") == second);
        qemu(folder, "snapshot -a second disk.qcow2");
        assert!(content(folder, "disk.qcow2") == second);
        check(folder);
        model = second.clone();
        image::delete_snapshot(&path, "first").unwrap();
        check(folder);
        assert!(content(folder, "disk.qcow2") == model);
        go_on(folder, &mut model, 6);
        check(folder);
        assert!(snapshot(folder, "second") == second);
        image::delete_snapshot(&path, "2").unwrap();
        check(folder);
        assert!(image::snapshots(&path).unwrap().is_empty());
        go_on(folder, &mut model, 7);
        check(folder);
        assert!(content(folder, "disk.qcow2") == model);
        // What was given up is used again.
        for _ in 0..4 {
            image::create_snapshot(&path, "again").unwrap();
            image::delete_snapshot(&path, "again").unwrap();
        }
        let before = fs::metadata(&path).unwrap().len();
        for _ in 0..4 {
            image::create_snapshot(&path, "again").unwrap();
            image::delete_snapshot(&path, "again").unwrap();
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), before);
        check(folder);
        assert!(content(folder, "disk.qcow2") == model);
    }
}

#[test]
fn a_snapshot_of_another_size_and_what_cannot_be() {
    let folder = TempDir::new_in(super::MEMORY).unwrap();
    let folder = folder.path();
    let path = folder.join("disk.qcow2");
    fs::write(folder.join("source.raw"), pattern(7, SIZE)).unwrap();
    qemu(folder, "convert -f raw -O qcow2 source.raw disk.qcow2");
    image::create_snapshot(&path, "small").unwrap();
    Disk::open(&options(path.clone()))
        .unwrap()
        .grow(8 << 20)
        .unwrap();
    image::create_snapshot(&path, "large").unwrap();
    image::apply_snapshot(&path, "small").unwrap();
    check(folder);
    assert!(content(folder, "disk.qcow2") == pattern(7, SIZE));
    image::apply_snapshot(&path, "large").unwrap();
    check(folder);
    assert_eq!(content(folder, "disk.qcow2").len(), 8 << 20);
    let message = |result: Result<(), image::ImageError>| result.unwrap_err().to_string();
    assert!(message(image::create_snapshot(&path, "small")).contains("already"));
    assert!(message(image::create_snapshot(&path, "")).contains("1 to 255"));
    assert!(message(image::apply_snapshot(&path, "none")).contains("no snapshot 'none'"));
    assert!(message(image::delete_snapshot(&path, "none")).contains("no snapshot 'none'"));
    let disk = Disk::open(&options(path.clone())).unwrap();
    assert!(message(image::delete_snapshot(&path, "small")).contains("another machine"));
    drop(disk);
    // A count of one bit has no room for a second user.
    qemu(
        folder,
        "convert -f raw -O qcow2 -o refcount_bits=1 source.raw narrow.qcow2",
    );
    let before = fs::read(folder.join("narrow.qcow2")).unwrap();
    let refused = message(image::create_snapshot(&folder.join("narrow.qcow2"), "no"));
    assert!(refused.contains("too narrow"), "{refused}");
    qemu(folder, "check narrow.qcow2");
    assert!(content(folder, "narrow.qcow2") == pattern(7, SIZE));
    assert!(
        fs::read(folder.join("narrow.qcow2"))
            .unwrap()
            .starts_with(&before[..512])
    );
}
