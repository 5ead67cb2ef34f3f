//! An image that somebody did not close is mended by whoever writes to it next.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use block::image::{self, Repair};
use block::{Disk, DiskOptions, EngineKind, ImageFormat, Operation};
use tempfile::TempDir;

use super::{MEMORY, MIB, options, pattern, qemu, read, run, try_qemu, write};

#[test]
fn it_says_so_while_it_is_written_to_and_not_before_or_after() {
    let folder = TempDir::new_in(MEMORY).unwrap();
    let path = folder.path().join("disk.qcow2");
    let is_dirty = || {
        let info = image::info(&path, ImageFormat::Qcow2).unwrap();
        info.qcow2.unwrap().dirty
    };
    for creation in ["compat=1.1", "compat=0.10"] {
        let has_mark = creation == "compat=1.1";
        qemu(
            folder.path(),
            &format!("create -f qcow2 -o {creation} disk.qcow2 64M"),
        );
        let before = fs::read(&path).unwrap();
        let disk = Disk::open(&options(path.clone())).unwrap();
        let mut engine = disk.engine(EngineKind::Threads, 4).unwrap();
        read(&mut engine, 0, 4096);
        run(&mut engine, Operation::Flush).unwrap();
        assert!(!is_dirty() && fs::read(&path).unwrap() == before);
        write(&mut engine, 0, &mut pattern(3, 4096), true);
        assert_eq!(is_dirty(), has_mark);
        drop(engine);
        drop(disk);
        assert!(!is_dirty());
        qemu(folder.path(), "check disk.qcow2");
        // Clusters that are there need no table.
        let disk = Disk::open(&options(path.clone())).unwrap();
        let mut engine = disk.engine(EngineKind::IoUring, 4).unwrap();
        write(&mut engine, 0, &mut pattern(4, 4096), false);
        assert!(!is_dirty());
    }
}

/// What is left of an image whose machine was killed: the file as it was at that moment.
#[test]
fn what_was_lost_is_given_back() {
    let folder = TempDir::new_in(MEMORY).unwrap();
    let path = folder.path().join("disk.qcow2");
    let killed = folder.path().join("killed.qcow2");
    qemu(folder.path(), "create -f qcow2 disk.qcow2 64M");
    let disk = Disk::open(&options(path.clone())).unwrap();
    let mut engine = disk.engine(EngineKind::Threads, 4).unwrap();
    let mut model = pattern(5, 4 * MIB);
    write(&mut engine, 0, &mut model, true);
    fs::copy(&path, &killed).unwrap();
    drop((engine, disk));
    // Clusters that were taken and not used, and counts that were not written.
    let file = File::options()
        .read(true)
        .write(true)
        .open(&killed)
        .unwrap();
    let number = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let block = number(number(48));
    let clusters = file.metadata().unwrap().len().div_ceil(65536);
    for (leaks, lost) in [(true, false), (true, true)] {
        file.write_all_at(&[1], 79).unwrap();
        if leaks {
            file.set_len((clusters + 2) * 65536).unwrap();
            file.write_all_at(&[0, 1, 0, 1], block + clusters * 2)
                .unwrap();
        }
        if lost {
            file.write_all_at(&[0; 20], block + (clusters - 10) * 2)
                .unwrap();
        }
        let expected = if lost { 2 } else { 3 };
        let verdict = try_qemu(folder.path(), "check killed.qcow2").status.code();
        assert_eq!(verdict, Some(expected));
        // Who only reads leaves it as it is.
        let readonly = DiskOptions {
            readonly: true,
            ..options(killed.clone())
        };
        let bytes = fs::read(&killed).unwrap();
        let disk = Disk::open(&readonly).unwrap();
        let mut engine = disk.engine(EngineKind::Threads, 4).unwrap();
        assert!(read(&mut engine, 0, 4 * MIB) == model);
        drop((engine, disk));
        assert!(fs::read(&killed).unwrap() == bytes);
        let disk = Disk::open(&options(killed.clone())).unwrap();
        fs::copy(&killed, folder.path().join("copy.qcow2")).unwrap();
        qemu(folder.path(), "check copy.qcow2");
        let mut engine = disk.engine(EngineKind::Threads, 4).unwrap();
        assert!(read(&mut engine, 0, 4 * MIB) == model);
        drop((engine, disk));
        qemu(folder.path(), "check killed.qcow2");
        let report = image::check(&killed, Repair::Nothing).unwrap();
        assert!(!report.is_dirty && !report.is_damaged() && report.leaked_clusters == 0);
    }
    // What cannot be mended is not written to.
    let l2 = number(number(40)) & 0x00ff_ffff_ffff_fe00;
    file.write_all_at(&(1_u64 << 50).to_be_bytes(), l2 + 80)
        .unwrap();
    file.write_all_at(&[1], 79).unwrap();
    let refused = Disk::open(&options(killed)).unwrap_err().to_string();
    assert!(refused.contains("cuddy image check"), "{refused}");
}
