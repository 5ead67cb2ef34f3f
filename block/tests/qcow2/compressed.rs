//! Clusters compressed with zstd, as qemu-img writes them.

use std::fs;
use std::path::Path;

use block::image::{self, CreateOptions, Repair};
use block::{CacheMode, Disk, DiskOptions, EngineKind, ImageFormat, Operation};
use tempfile::TempDir;

use super::{MEMORY, MIB, SIZE, change, content, options, pattern, qemu, read, run, write};

/// An image of which all is compressed.
fn make(folder: &Path, name: &str, creation: &str, bytes: &[u8]) {
    fs::write(folder.join("source.raw"), bytes).unwrap();
    qemu(
        folder,
        &format!("convert -c -f raw -O qcow2 -o compression_type=zstd{creation} source.raw {name}"),
    );
}

#[test]
fn what_is_compressed_with_zstd_is_read_and_written_over() {
    for (creation, cache, kind) in [
        ("", CacheMode::Writeback, EngineKind::IoUring),
        (",cluster_size=512", CacheMode::Writeback, EngineKind::Sync),
        (",cluster_size=4k", CacheMode::Unsafe, EngineKind::Threads),
        (
            ",cluster_size=2M",
            CacheMode::Writeback,
            EngineKind::IoUring,
        ),
        ("", CacheMode::None, EngineKind::Threads),
    ] {
        let folder = match cache {
            CacheMode::None => TempDir::new_in(env!("CARGO_TARGET_TMPDIR")),
            _ => TempDir::new_in(MEMORY),
        };
        let folder = folder.unwrap();
        let folder = folder.path();
        let mut model = pattern(17, SIZE);
        make(folder, "disk.qcow2", creation, &model);
        let options = DiskOptions {
            cache,
            ..options(folder.join("disk.qcow2"))
        };
        {
            let readonly = DiskOptions {
                readonly: true,
                ..options.clone()
            };
            let disk = Disk::open(&readonly).unwrap();
            let mut engine = disk.engine(kind, 16).unwrap();
            assert!(read(&mut engine, 0, SIZE) == model, "{creation}");
            assert!(read(&mut engine, 77, 5120) == model[77 * 512..77 * 512 + 5120]);
        }
        let disk = Disk::open(&options).unwrap();
        let mut engine = disk.engine(kind, 16).unwrap();
        // The end, where the last cluster is cut off.
        let last = u64::try_from(SIZE / 512 - 1).unwrap();
        write(&mut engine, last, &mut [0x77; 512], false);
        model[SIZE - 512..].fill(0x77);
        write(&mut engine, last - 2, &mut [0x78; 512], true);
        model[SIZE - 3 * 512..SIZE - 2 * 512].fill(0x78);
        change(&mut engine, &mut model, 23);
        assert!(read(&mut engine, 0, SIZE) == model, "{creation}");
        drop((engine, disk));
        qemu(folder, "check disk.qcow2");
        assert!(content(folder, "disk.qcow2") == model);
        let report = image::check(&folder.join("disk.qcow2"), Repair::Nothing).unwrap();
        assert!(!report.is_damaged() && report.leaked_clusters == 0);
        // It is still one that is compressed with zstd, for whoever writes to it next.
        let info = image::info(&folder.join("disk.qcow2"), ImageFormat::Auto).unwrap();
        assert_eq!(info.size_bytes, u64::try_from(SIZE).unwrap());
        let head = info.qcow2.unwrap();
        assert_eq!((head.compression, head.dirty), ("zstd", false));
    }
}

#[test]
fn such_an_image_is_read_as_a_backing_file_and_as_a_snapshot() {
    let folder = TempDir::new_in(MEMORY).unwrap();
    let folder = folder.path();
    let base = pattern(19, SIZE);
    make(folder, "base.qcow2", "", &base);
    qemu(folder, "create -f qcow2 -F qcow2 -b base.qcow2 disk.qcow2");
    let mut model = base.clone();
    {
        let disk = Disk::open(&options(folder.join("disk.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::IoUring, 16).unwrap();
        assert!(read(&mut engine, 0, SIZE) == model);
        change(&mut engine, &mut model, 29);
    }
    qemu(folder, "check disk.qcow2");
    assert!(content(folder, "disk.qcow2") == model);
    image::create_snapshot(&folder.join("base.qcow2"), "kept").unwrap();
    {
        let mut model = base.clone();
        let disk = Disk::open(&options(folder.join("base.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::Threads, 16).unwrap();
        change(&mut engine, &mut model, 31);
    }
    qemu(folder, "check base.qcow2");
    let target = folder.join("kept.raw");
    image::convert_snapshot(
        &folder.join("base.qcow2"),
        "kept",
        &target,
        &CreateOptions::default(),
    )
    .unwrap();
    assert!(fs::read(target).unwrap() == base);
}

#[test]
fn such_an_image_grows() {
    for grown in [SIZE + 512, SIZE + 5120, 5 * MIB] {
        let folder = TempDir::new_in(MEMORY).unwrap();
        let folder = folder.path();
        let mut model = pattern(37, SIZE);
        fs::write(folder.join("base.raw"), pattern(38, 6 * MIB)).unwrap();
        make(folder, "disk.qcow2", "", &model);
        // What is behind the end must not come from there.
        qemu(folder, "rebase -u -F raw -b base.raw -f qcow2 disk.qcow2");
        let disk = Disk::open(&options(folder.join("disk.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::Threads, 16).unwrap();
        disk.grow(u64::try_from(grown).unwrap()).unwrap();
        model.resize(grown, 0);
        assert!(read(&mut engine, 0, grown) == model, "{grown}");
        change(&mut engine, &mut model, 41);
        run(&mut engine, Operation::Flush).unwrap();
        drop((engine, disk));
        qemu(folder, "check disk.qcow2");
        assert!(content(folder, "disk.qcow2") == model);
    }
}
