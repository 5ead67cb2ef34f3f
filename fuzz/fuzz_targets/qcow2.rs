//! qcow2 images with any contents: opened or refused, and then read, written, discarded and flushed by a
//! guest. Nothing outside the image is touched, in bounded time and memory.
//!
//! An input is the requests, [`REQUEST_BYTES`] for each of [`REQUESTS`], and then the image.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};

use block::{CacheMode, Disk, DiskOptions, EngineKind, ImageFormat, IoBuffer, Operation};
use cuddy_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const REQUESTS: usize = 8;
const REQUEST_BYTES: usize = 4;
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
    let Ok(disk) = Disk::open(&options) else {
        return;
    };
    let sectors = disk.sectors();
    let mut engine = disk.engine(EngineKind::Sync, 4).expect("an engine");
    let mut data = vec![0x5a; DATA_BYTES];
    for (tag, bytes) in (0..).zip(requests.chunks(REQUEST_BYTES)) {
        request(&mut engine, tag, sectors, &mut data, bytes);
    }
});
