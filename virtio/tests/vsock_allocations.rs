//! Packets of a socket device allocate nothing, in either direction.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Display;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use virtio::devices::vsock::{HostSocket, Vsock, VsockOptions};
use virtio::queue::{Queue, QueueState};
use virtio::{Activation, ActiveQueue, GuestMemory, Interrupt, VirtioDevice, feature};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use driver_queue::{Buffer, DriverQueue};

#[expect(dead_code, reason = "the unit tests use more of it")]
#[path = "../src/testing/driver_queue.rs"]
mod driver_queue;
#[expect(dead_code, reason = "the unit tests use more of it")]
#[path = "../src/testing/packed_queue.rs"]
mod packed_queue;
#[path = "../src/testing/split_queue.rs"]
mod split_queue;

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

/// Nobody listens to it: the test looks at the rings.
#[derive(Debug)]
struct Silent;

impl Interrupt for Silent {
    fn signal_used(&self, _queue_index: u16) {}
    fn signal_config_change(&self) {}
    fn mark_broken(&self, reason: &dyn Display) {
        eprintln!("broken: {reason}");
        std::process::abort();
    }
}

const SIZE: u16 = 64;
const DATA_BYTES: u32 = 4000;
const RECEIVE: u64 = 0x10_0000;
const TRANSMIT: u64 = 0x20_0000;
const PATIENCE: Duration = Duration::from_secs(10);

struct Guest {
    memory: Arc<GuestMemory>,
    queues: [DriverQueue; 2],
    doorbells: Vec<EventFd>,
    /// What the host is told that the guest has taken.
    taken: u32,
}

impl Guest {
    /// Starts `device` for a driver of its own.
    fn start(device: &mut Vsock) -> Self {
        let ranges = [(GuestAddress(0), 4 << 20)];
        let memory = Arc::new(GuestMemory::from_ranges(&ranges).unwrap());
        let features = 1 | feature::VERSION_1;
        let areas = |index: u64| [1, 2, 3].map(|area| (4 * index + area) * 0x1000);
        let mut doorbells = Vec::new();
        let queues = (0..3).map(|index| {
            let [descriptor_area, driver_area, device_area] = areas(index);
            let state = QueueState {
                max_size: SIZE,
                size: SIZE,
                ready: true,
                descriptor_area,
                driver_area,
                device_area,
                progress: None,
            };
            let doorbell = EventFd::new(EFD_NONBLOCK).unwrap();
            doorbells.push(doorbell.try_clone().unwrap());
            ActiveQueue {
                queue: Queue::new(state, features, Arc::clone(&memory)).unwrap(),
                doorbell,
            }
        });
        let queues = queues.collect();
        let activation = Activation {
            memory: Arc::clone(&memory),
            features,
            queues,
            interrupt: Arc::new(Silent),
        };
        device.start(activation).unwrap();
        let driver = |index| DriverQueue::new(Arc::clone(&memory), SIZE, areas(index), features);
        Self {
            queues: [driver(0), driver(1)],
            doorbells,
            taken: 0,
            memory,
        }
    }

    fn used(&mut self, queue: usize) -> u32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some((_, written)) = self.queues[queue].take_used() {
                return written;
            }
            assert!(Instant::now() < end, "queue {queue} is not served");
            std::thread::yield_now();
        }
    }

    fn send(&mut self, operation: u16, data_bytes: u32) {
        let mut header = [0; 44];
        (header[0], header[8], header[16], header[20], header[28]) = (3, 2, 10, 1, 1);
        header[24..28].copy_from_slice(&data_bytes.to_le_bytes());
        header[30..32].copy_from_slice(&operation.to_le_bytes());
        header[36..40].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        header[40..].copy_from_slice(&self.taken.to_le_bytes());
        let memory = &self.memory;
        memory.write_slice(&header, GuestAddress(TRANSMIT)).unwrap();
        self.queues[1].add(&[Buffer::Readable(TRANSMIT, 44 + data_bytes)]);
        self.doorbells[1].write(1).unwrap();
        assert_eq!(self.used(1), 0);
    }

    /// Gives a buffer, and waits for the packet in it: its operation and its bytes.
    fn receive(&mut self) -> (u16, u32) {
        self.queues[0].add(&[Buffer::Writable(RECEIVE, 44 + DATA_BYTES)]);
        self.doorbells[0].write(1).unwrap();
        let written = self.used(0);
        let operation = self.memory.read_obj(GuestAddress(RECEIVE + 30)).unwrap();
        (operation, written - 44)
    }

    /// A packet each way, and those of credit.
    fn turn(&mut self, host: &mut UnixStream, bytes: &mut [u8]) {
        self.send(5, DATA_BYTES);
        host.read_exact(bytes).unwrap();
        host.write_all(bytes).unwrap();
        let mut left = DATA_BYTES;
        while left > 0 {
            // Updates of credit come in between.
            let (operation, length) = self.receive();
            assert!(operation == 5 || operation == 6, "operation {operation}");
            left -= length;
        }
        self.taken = self.taken.wrapping_add(DATA_BYTES);
        // Asks for credit, and is given it.
        self.send(7, 0);
        assert_eq!(self.receive(), (6, 0));
    }
}

#[test]
fn packets_allocate_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let listener = UnixListener::bind(&path).unwrap();
    let server = UnixListener::bind(folder.path().join("vm_1")).unwrap();
    let host = Arc::new(HostSocket::new(listener, path).unwrap());
    let options = VsockOptions::new("vsock", 3);
    let mut device = Vsock::new(host, options, Arc::default()).unwrap();
    let mut guest = Guest::start(&mut device);
    guest.send(1, 0);
    assert_eq!(guest.receive(), (2, 0));
    let mut stream = server.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![7; usize::try_from(DATA_BYTES).unwrap()];
    for _ in 0..20 {
        guest.turn(&mut stream, &mut bytes);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..500 {
        guest.turn(&mut stream, &mut bytes);
    }
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(after - before, 0, "allocations in 2000 packets");
    device.stop();
}
