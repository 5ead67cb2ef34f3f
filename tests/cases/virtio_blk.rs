//! The block device, driven by a guest, and what the host finds in the image afterwards.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use cuddy_tests::{MachineBuilder, disk};
use tempfile::TempDir;
use vmm::ImageFormat;
use vmm::image::{CreateOptions, Repair};

const SECTORS: u64 = 4096;

fn prepared() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = disk::prepare(directory.path(), SECTORS);
    (directory, path)
}

fn machine(tests: &str, path: &Path, keys: &str) -> MachineBuilder {
    let mut argument = OsString::from("path=");
    argument.push(path);
    argument.push(keys);
    MachineBuilder::suite(tests)
        .option(&format!("blk.sectors={SECTORS}"))
        .argument("--disk", argument)
}

/// Sector `number` of the image.
fn sector(path: &Path, number: u64) -> Vec<u8> {
    let image = fs::read(path).expect("the image");
    let start = usize::try_from(number).expect("a small number") * disk::SECTOR_BYTES;
    image[start..start + disk::SECTOR_BYTES].to_vec()
}

#[test]
fn capacity_serial_and_configuration() {
    let (_directory, path) = prepared();
    machine("blk-identity,blk-config", &path, ",serial=CUDDY-0042")
        .option("blk.serial=CUDDY-0042")
        .pass_on_each_transport();
}

#[test]
fn every_sector_can_be_read() {
    let (_directory, path) = prepared();
    machine("blk-read", &path, "").pass_on_each_transport();
}

#[test]
fn what_is_written_and_flushed_is_in_the_image() {
    let (_directory, path) = prepared();
    machine("blk-write", &path, "").pass_on_each_transport();
    for number in (8..72).chain([SECTORS - 1]) {
        assert!(
            sector(&path, number) == disk::written_sector(number),
            "sector {number}"
        );
    }
    for number in [0, 7, 72, 100, SECTORS - 2] {
        assert!(
            sector(&path, number) == disk::sector(number),
            "sector {number}"
        );
    }
    let length = fs::metadata(&path).expect("the image").len();
    assert_eq!(length, SECTORS * 512);
}

#[test]
fn any_alignment_will_do() {
    let (_directory, path) = prepared();
    machine("blk-unaligned", &path, "").pass_on_each_transport();
    assert!(sector(&path, 200) == disk::written_sector(200));
    assert!(sector(&path, 201) == disk::written_sector(201));
}

#[test]
fn impossible_requests_fail_and_the_device_goes_on() {
    let (_directory, path) = prepared();
    machine("blk-errors", &path, "").pass_on_each_transport();
    assert!(fs::metadata(&path).expect("the image").len() == SECTORS * 512);
}

#[test]
fn read_only_disks_are_not_written() {
    let (_directory, path) = prepared();
    machine("blk-read-only", &path, ",readonly=on").pass_on_each_transport();
    assert!(sector(&path, 3) == disk::sector(3));
}

#[test]
fn discarded_and_zeroed_sectors_read_as_zeroes() {
    let (_directory, path) = prepared();
    machine("blk-discard", &path, "").pass_on_each_transport();
    for number in 128..256 {
        assert!(sector(&path, number) == [0; 512], "sector {number}");
    }
    assert!(sector(&path, 127) == disk::sector(127));
    assert!(sector(&path, 256) == disk::sector(256));
}

#[test]
fn batches_take_one_doorbell_and_one_interrupt() {
    for irqchip in ["split", "kernel"] {
        let (_directory, path) = prepared();
        machine("blk-batch", &path, "")
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}

#[test]
fn completions_interrupt_as_the_driver_wants() {
    for irqchip in ["split", "kernel"] {
        let (_directory, path) = prepared();
        machine("blk-interrupt", &path, "")
            .argument("--irqchip", irqchip)
            .pass_on_each_transport();
    }
}

#[test]
fn packed_rings_do_the_same() {
    // What writes comes last.
    let tests = "rng,rng-interrupt,blk-identity,blk-read,blk-errors,blk-batch,blk-interrupt,blk-reset,\
        blk-unaligned,blk-write,blk-discard";
    for transport in ["pci", "mmio"] {
        let (_directory, path) = prepared();
        machine(tests, &path, "")
            .argument("--packed-rings", "on")
            .argument("--transport", transport)
            .option("rings=packed")
            .pass();
        assert!(sector(&path, 8) == disk::written_sector(8));
        assert!(sector(&path, 200) == [0; 512]);
    }
}

#[test]
fn reset_gives_everything_back() {
    let (_directory, path) = prepared();
    machine("blk-reset", &path, "").pass_on_each_transport();
}

#[test]
fn uncached_disks_do_the_same() {
    for transport in ["pci", "mmio"] {
        let (_directory, path) = prepared();
        machine("blk-read,blk-unaligned,blk-write", &path, ",cache=none")
            .argument("--transport", transport)
            .pass();
        assert!(sector(&path, 8) == disk::written_sector(8));
        assert!(sector(&path, 200) == disk::written_sector(200));
    }
}

#[test]
fn every_engine_and_cache_mode_does_the_same() {
    for keys in [
        ",engine=io_uring,cache=directsync,queues=4",
        ",engine=io_uring,cache=unsafe",
        ",engine=threads,cache=none,queues=2",
        ",engine=threads",
        ",engine=sync,cache=directsync",
        ",bps=200M,iops=100000,on-error=stop",
    ] {
        let (_directory, path) = prepared();
        machine("blk-read,blk-unaligned,blk-write,blk-discard", &path, keys).pass();
        assert!(sector(&path, 8) == disk::written_sector(8), "{keys}");
        assert!(sector(&path, 200) == [0; 512], "{keys}");
    }
}

#[test]
fn qcow2_images_do_the_same() {
    let (directory, raw) = prepared();
    let image = directory.path().join("disk.qcow2");
    let on_top = directory.path().join("top.qcow2");
    let to_qcow2 = CreateOptions {
        format: ImageFormat::Qcow2,
        ..CreateOptions::default()
    };
    vmm::image::convert(&raw, ImageFormat::Raw, &image, &to_qcow2).expect("an image");
    let backing = CreateOptions {
        backing: Some(("disk.qcow2".into(), ImageFormat::Qcow2)),
        ..to_qcow2
    };
    vmm::image::create(&on_top, &backing).expect("an image");
    for keys in [",format=qcow2", ",format=auto,cache=none,queues=2"] {
        machine("blk-read", &image, keys).pass();
    }
    machine(
        "blk-batch,blk-interrupt,blk-reset",
        &on_top,
        ",format=qcow2",
    )
    .pass();
    vmm::image::create_snapshot(&on_top, "unwritten").expect("a snapshot");
    let tests = "blk-read,blk-unaligned,blk-write,blk-discard";
    machine(tests, &on_top, ",format=qcow2").pass();
    // It was closed, and a snapshot shows what was before.
    let report = vmm::image::check(&on_top, Repair::Nothing).expect("a check");
    assert!(!report.is_dirty && !report.is_damaged() && report.leaked_clusters == 0);
    let snapshot = ",format=qcow2,readonly=on,snapshot=unwritten";
    machine("blk-read", &on_top, snapshot).pass();
    // What was written is in the upper image alone.
    for (image, expected) in [
        (&on_top, disk::written_sector(8)),
        (&image, disk::sector(8)),
    ] {
        let copy = directory.path().join("copy.raw");
        let to_raw = CreateOptions::default();
        vmm::image::convert(image, ImageFormat::Qcow2, &copy, &to_raw).expect("a copy");
        assert!(sector(&copy, 8) == expected);
        fs::remove_file(copy).expect("the copy");
    }
}
