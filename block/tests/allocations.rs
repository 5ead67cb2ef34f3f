//! Requests allocate nothing, by any engine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering};

use block::image::{self, CreateOptions};
use block::{CacheMode, Disk, DiskOptions, Engine, EngineKind, ImageFormat, IoBuffer, Operation};

/// The system's allocator, and how often it was asked for memory.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const DEPTH: u64 = 16;
const BLOCK_BYTES: usize = 4096;

/// Writes, reads, flushes and zeroes, [`DEPTH`] at a time.
fn turn(engine: &mut Engine, buffers: &[IoBuffer]) {
    for is_write in [true, false] {
        for tag in 0..DEPTH {
            let sector = tag * 16;
            // In two pieces.
            let place = usize::try_from(tag).unwrap() * 2;
            let buffers = &buffers[place..place + 2];
            let operation = if is_write {
                let durable = tag == 3;
                Operation::Write {
                    sector,
                    buffers,
                    durable,
                }
            } else {
                Operation::Read { sector, buffers }
            };
            engine.submit(tag, operation);
        }
        engine.submit(DEPTH, Operation::Flush);
        let zero = Operation::WriteZeroes {
            sector: 1024,
            length_bytes: 4096,
            may_unmap: true,
            durable: false,
        };
        engine.submit(DEPTH + 1, zero);
        engine.drain().unwrap();
        let mut completed = 0;
        while let Some(completion) = engine.next_completion() {
            completion.result.unwrap();
            completed += 1;
        }
        assert_eq!(completed, DEPTH + 2);
    }
}

/// Writes and reads, in clusters that are there.
fn transfers(engine: &mut Engine, buffers: &[IoBuffer]) {
    for is_write in [true, false] {
        for tag in 0..DEPTH {
            let (sector, place) = (tag * 8, usize::try_from(tag).unwrap());
            let buffers = &buffers[place..=place];
            let operation = if is_write {
                Operation::Write {
                    sector,
                    buffers,
                    durable: false,
                }
            } else {
                Operation::Read { sector, buffers }
            };
            engine.submit(tag, operation);
        }
        engine.drain().unwrap();
        while let Some(completion) = engine.next_completion() {
            completion.result.unwrap();
        }
    }
}

#[test]
fn requests_allocate_nothing() {
    // On a file system with O_DIRECT, which the one for temporary files may not have.
    let program = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let mut memory = vec![1_u8; BLOCK_BYTES * 2 * 16 + BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    let buffers: Vec<IoBuffer> = memory[start..]
        .chunks_exact_mut(BLOCK_BYTES)
        // SAFETY: nothing else uses the memory before the engines are gone.
        .map(|bytes| unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) })
        .collect();
    for kind in [EngineKind::IoUring, EngineKind::Threads, EngineKind::Sync] {
        for cache in [
            CacheMode::Writeback,
            CacheMode::None,
            CacheMode::DirectSync,
            CacheMode::Unsafe,
        ] {
            let disk = Disk::open(&DiskOptions {
                cache,
                ..DiskOptions::new(&path)
            })
            .unwrap();
            let mut engine = disk.engine(kind, 32).unwrap();
            assert_eq!(engine.kind(), kind);
            for _ in 0..4 {
                turn(&mut engine, &buffers);
            }
            // A thread that has just been started allocates once; a request would each time.
            let fewest = (0..4).map(|_| {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                for _ in 0..10 {
                    turn(&mut engine, &buffers);
                }
                ALLOCATIONS.load(Ordering::Relaxed) - before
            });
            assert_eq!(fewest.min(), Some(0), "{kind:?} {cache:?}");
        }
    }
    // Of a qcow2 image, those that need no other cluster.
    let path = directory.path().join("disk.qcow2");
    let options = CreateOptions {
        format: ImageFormat::Qcow2,
        size_bytes: Some(1 << 20),
        ..CreateOptions::default()
    };
    image::create(&path, &options).unwrap();
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let disk = Disk::open(&DiskOptions {
            cache,
            format: ImageFormat::Qcow2,
            ..DiskOptions::new(&path)
        })
        .unwrap();
        let mut engine = disk.engine(EngineKind::IoUring, 32).unwrap();
        for _ in 0..4 {
            transfers(&mut engine, &buffers);
        }
        let fewest = (0..4).map(|_| {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..10 {
                transfers(&mut engine, &buffers);
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        });
        assert_eq!(fewest.min(), Some(0), "qcow2 {cache:?}");
    }
}
