//! What a request costs: no memory. What is kept: no more than a queue has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Display;

use crate::queue::QueueState;
use block::{CacheMode, Disk, DiskOptions, EngineKind, RateLimit};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::testing::{Buffer, DriverQueue, memory};

/// The system's allocator, and how often each thread asked it for memory.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counter any more.
        let _ending = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
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

#[derive(Debug)]
struct Silence;

impl Interrupt for Silence {
    fn signal_used(&self, _queue_index: u16) {}
    fn signal_config_change(&self) {}
    fn mark_broken(&self, reason: &dyn Display) {
        unreachable!("{reason}")
    }
}

const RING: [u64; 3] = [0x1000, 0x2000, 0x3000];
const HEADERS: u64 = 0x4000;
const DATA: u64 = 0x8000;

/// A queue of `size` descriptors that nobody has rung for.
fn task(memory: &Arc<GuestMemory>, size: u16, engine: Engine) -> Task {
    let state = QueueState {
        max_size: 256,
        size,
        ready: true,
        descriptor_area: RING[0],
        driver_area: RING[1],
        device_area: RING[2],
        progress: None,
    };
    Task {
        index: 0,
        queue: Queue::new(state, 0, Arc::clone(memory)).unwrap(),
        name: "disk0".to_owned(),
        interrupt: Arc::new(Silence),
        engine,
        features: 0,
        serial: Serial::default(),
        on_error: OnError::Report,
        shared: Arc::new(Shared::new(RateLimit::default(), true)),
        timer: None,
        held: Vec::new(),
        requests: Requests::with_room(size),
        polling: Polling::new(),
        buffers: Vec::with_capacity(256),
        untold: false,
    }
}

/// Offers a write, a read and a flush for each of ten places and has them all served.
fn serve(task: &mut Task, driver: &mut DriverQueue) {
    for place in 0..10_u64 {
        let data = DATA + place * 4096;
        let header = |kind: u64| Buffer::Readable(HEADERS + kind * 1024 + place * 16, 16);
        let status = Buffer::Writable(HEADERS + 0x1000 + place, 1);
        driver.add(&[header(0), Buffer::Writable(data, 4096), status]);
        driver.add(&[header(1), Buffer::Readable(data, 4096), status]);
        driver.add(&[header(2), status]);
    }
    let mut served = 0;
    while served < 30 {
        task.turn().unwrap();
        while driver.take_used().is_some() {
            served += 1;
        }
    }
}

#[test]
fn a_request_allocates_nothing_from_ring_to_ring() {
    let program = std::env::current_exe().unwrap();
    let directory = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let path = directory.path().join("disk.img");
    std::fs::write(&path, vec![1; 1 << 20]).unwrap();
    for (engine, cache) in [
        (EngineKind::IoUring, CacheMode::Writeback),
        (EngineKind::IoUring, CacheMode::None),
        (EngineKind::Threads, CacheMode::None),
        (EngineKind::Sync, CacheMode::Writeback),
    ] {
        let memory = memory();
        for place in 0..10_u64 {
            for (row, kind) in [(0, 0_u32), (1, 1), (2, 4)] {
                let at = GuestAddress(HEADERS + row * 1024 + place * 16);
                memory.write_obj(kind, at).unwrap();
                let sector = place * 8;
                memory
                    .write_obj(sector, at.0.checked_add(8).map(GuestAddress).unwrap())
                    .unwrap();
            }
        }
        let mut driver = DriverQueue::new(Arc::clone(&memory), 128, RING, 0);
        let disk = Disk::open(&DiskOptions {
            cache,
            ..DiskOptions::new(&path)
        })
        .unwrap();
        let mut task = task(&memory, 128, disk.engine(engine, 128).unwrap());
        for _ in 0..5 {
            serve(&mut task, &mut driver);
        }
        // More at a time than ever before take memory once; a request would each time.
        let fewest = (0..5).map(|_| {
            let before = ALLOCATIONS.with(Cell::get);
            for _ in 0..10 {
                serve(&mut task, &mut driver);
            }
            ALLOCATIONS.with(Cell::get) - before
        });
        assert_eq!(fewest.min(), Some(0), "{engine:?} {cache:?}");
        task.end().unwrap();
    }
}

#[derive(Debug)]
struct Deaf;

impl super::super::ErrorListener for Deaf {
    fn request_failed(&self, _device: &str) {}
}

#[test]
fn no_more_failed_requests_are_kept_than_the_queue_has_descriptors() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let disk = Disk::open(&DiskOptions::new(file.path())).unwrap();
    file.as_file().set_len(0).unwrap();
    let memory = memory();
    let mut task = task(&memory, 16, disk.engine(EngineKind::Sync, 16).unwrap());
    task.on_error = OnError::Stop(Arc::new(Deaf));
    let mut driver = DriverQueue::new(Arc::clone(&memory), 16, RING, 0);
    let head = driver.add(&[
        Buffer::Readable(HEADERS, 16),
        Buffer::Writable(DATA, 512),
        Buffer::Writable(DATA + 512, 1),
    ]);
    // One head again and again, which no honest driver does.
    for _ in 0..4 {
        for _ in 0..4 {
            driver.split().offer(head);
        }
        assert_eq!(task.turn().unwrap(), Turn::Wait);
    }
    assert_eq!(task.held.len(), 16);
    assert!(driver.take_used().is_none());
}
