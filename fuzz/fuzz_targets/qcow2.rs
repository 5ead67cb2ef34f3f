//! qcow2 images with any contents: opened or refused, and then read, written, discarded and flushed by a
//! guest; checked, mended, and given a snapshot. What was found sound stays so. Nothing outside the image is
//! touched, in bounded time and memory.
//!
//! An input is the requests, [`REQUEST_BYTES`] for each of [`REQUESTS`], and then the image.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use block::image::{self, Repair};
use block::{CacheMode, Disk, DiskOptions, EngineKind, ImageFormat, IoBuffer, Operation};
use cuddy_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const REQUESTS: usize = 8;
const REQUEST_BYTES: usize = 4;
/// Larger images are not looked after.
const LOOKED_AFTER_BYTES: u64 = 64 << 20;
/// Most bytes of a request.
const DATA_BYTES: usize = 64 << 10;

fn request(engine: &mut block::Engine, tag: u64, sectors: u64, data: &mut [u8], bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = input.byte();
    // Within the disk mostly, at its start or its end.
    let near = u64::from(input.byte());
    let sector = match kind >> 6 {
        0 => near,
        1 => near << 4,
        2 => sectors.saturating_sub(near),
        _ => sectors.checked_div(256).unwrap_or(0).saturating_mul(near),
    };
    let length = (usize::from(input.byte()) % 128 + 1) * 512;
    // SAFETY: the bytes live until the request is done, and nobody looks at them meanwhile.
    let buffers = [unsafe { IoBuffer::new(data.as_mut_ptr(), length) }];
    let length_bytes = u64::try_from(length).expect("a length") << (kind >> 3 & 7);
    let durable = input.byte() & 1 != 0;
    let buffers = &buffers;
    let operation = match kind & 7 {
        0..3 => Operation::Read { sector, buffers },
        3 | 4 => Operation::Write {
            sector,
            buffers,
            durable,
        },
        5 => Operation::Discard {
            sector,
            length_bytes,
        },
        6 => Operation::WriteZeroes {
            sector,
            length_bytes,
            may_unmap: durable,
            durable,
        },
        _ => Operation::Flush,
    };
    engine.submit(tag, operation);
    engine.commit().expect("a ring");
    engine.drain().expect("a ring");
    let mut completed = 0;
    while let Some(completion) = engine.next_completion() {
        assert_eq!(completion.tag, tag);
        completed += 1;
    }
    assert_eq!(completed, 1);
}

/// Whether a check finds nothing.
fn is_sound(path: &Path, repair: Repair) -> bool {
    image::check(path, repair)
        .is_ok_and(|report| !report.is_damaged() && report.leaked_clusters == 0)
}

/// Mends the image, and takes a snapshot, which is read, gone back to and given up.
fn look_after(options: &DiskOptions, file: &File, data: &mut [u8]) {
    const NAME: &str = "a name that no input has";
    let path = &options.path;
    // An image may have had itself written to anywhere; a check takes memory for each cluster.
    let is_small = file.metadata().expect("a file").len() < LOOKED_AFTER_BYTES;
    if !is_small || !is_sound(path, Repair::All) {
        return;
    }
    assert!(is_sound(path, Repair::Nothing), "not mended");
    if image::create_snapshot(path, NAME).is_err() {
        return;
    }
    assert!(is_sound(path, Repair::Nothing), "a snapshot did harm");
    let snapshot = DiskOptions {
        readonly: true,
        snapshot: Some(NAME.to_owned()),
        ..options.clone()
    };
    if let Ok(disk) = Disk::open(&snapshot) {
        let mut engine = disk.engine(EngineKind::Sync, 4).expect("an engine");
        request(&mut engine, 0, disk.sectors(), data, &[0, 0, 127, 0]);
    }
    image::apply_snapshot(path, NAME).expect("a snapshot that is there");
    assert!(is_sound(path, Repair::Nothing), "going back did harm");
    image::delete_snapshot(path, NAME).expect("a snapshot that is there");
    assert!(is_sound(path, Repair::Nothing), "deleting did harm");
}

fuzz_target!(|bytes: &[u8]| {
    let (requests, image) = bytes.split_at(bytes.len().min(REQUESTS * REQUEST_BYTES));
    // SAFETY: the name is a string that ends in a zero.
    let descriptor = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0, "no memfd");
    // SAFETY: the descriptor was just made, and is nobody else's.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(image).expect("room for the image");
    let options = DiskOptions {
        format: ImageFormat::Qcow2,
        cache: CacheMode::Unsafe,
        lock: false,
        ..DiskOptions::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    let mut data = vec![0x5a; DATA_BYTES];
    if let Ok(disk) = Disk::open(&options) {
        let sectors = disk.sectors();
        let mut engine = disk.engine(EngineKind::Sync, 4).expect("an engine");
        for (tag, bytes) in (0..).zip(requests.chunks(REQUEST_BYTES)) {
            request(&mut engine, tag, sectors, &mut data, bytes);
        }
    }
    look_after(&options, &file, &mut data);
});
