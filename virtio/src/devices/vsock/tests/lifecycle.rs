//! What becomes of connections when the device stops and starts, is reset, or goes on from a saved state.

use std::time::Instant;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::queue::QueueState;
use crate::testing::{Buffer, DriverQueue, status};
use crate::{ActiveQueue, GuestMemory, Interrupt};

#[test]
fn connections_outlive_a_pause() {
    for ring in Guest::rings() {
        let host = Host::new();
        let server = host.listen(1);
        let mut guest = Guest::start(host.device(|_| {}), ring, 16);
        guest.connect(10, 1, 1 << 20);
        let mut stream = accept(&server);
        let mut expected = Vec::new();
        for round in 0..20 {
            guest.driver.transport.pause();
            let bytes = content(20_000, round);
            // While the device stands still.
            stream.write_all(&bytes).unwrap();
            expected.extend_from_slice(&bytes);
            guest.driver.transport.resume();
            guest.write_all(10, b"back");
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
        }
        let length = expected.len();
        guest.wait(10, "all of it", |stream| stream.received.len() == length);
        assert!(guest.streams[&10].received == expected);
    }
}

#[test]
fn a_reset_closes_the_hosts_streams() {
    let host = Host::new();
    let server = host.listen(1);
    let device = host.device(|_| {});
    let counters = device.counters();
    let mut guest = Guest::start(device, 0, 16);
    guest.connect(10, 1, 1 << 20);
    let mut stream = accept(&server);
    guest.driver.reset();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(counters.counts().open, 0);
    // A client that comes while there is no driver waits for the next one.
    let mut client = host.client(52);
    restart(&mut guest);
    guest.take_client(52);
    assert!(line(&mut client).starts_with("OK "));
    assert!(!guest.driver.queues[2].has_used());
}

fn restart(guest: &mut Guest) {
    guest.streams.clear();
    guest.driver.start(1, 128);
    for number in 0..16 {
        guest.post(crate::testing::THIRD_REGION + number * 0x2000);
    }
    guest.driver.kick(0);
}

/// Nobody listens to it.
#[derive(Debug)]
struct Silent;

impl Interrupt for Silent {
    fn signal_used(&self, _queue_index: u16) {}
    fn signal_config_change(&self) {}
    fn mark_broken(&self, reason: &dyn std::fmt::Display) {
        panic!("{reason}");
    }
}

/// Starts `device` for a driver that was up before, with its event queue.
fn go_on(device: &mut Vsock, memory: &Arc<GuestMemory>) -> Arc<EventFd> {
    let doorbell = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let queues = (0..3).map(|index| {
        let state = QueueState {
            max_size: 16,
            size: 16,
            ready: index == 2,
            descriptor_area: 0x1000,
            driver_area: 0x2000,
            device_area: 0x3000,
            progress: None,
        };
        ActiveQueue {
            queue: Queue::new(state, 0, Arc::clone(memory)).unwrap(),
            doorbell: doorbell.try_clone().unwrap(),
        }
    });
    let activation = Activation {
        memory: Arc::clone(memory),
        features: 0,
        queues: queues.collect(),
        interrupt: Arc::new(Silent),
    };
    device.start(activation).unwrap();
    doorbell
}

#[test]
fn a_driver_that_goes_on_hears_that_its_connections_are_lost() {
    let host = Host::new();
    let mut device = host.device(|options| options.lost_connections = true);
    let memory = crate::testing::memory();
    memory
        .write_slice(&[0xff; 16], GuestAddress(0x8000))
        .unwrap();
    let areas = [0x1000, 0x2000, 0x3000];
    let mut driver = DriverQueue::new(Arc::clone(&memory), 16, areas, 0);
    let doorbell = go_on(&mut device, &memory);
    for _ in 0..2 {
        driver.add(&[Buffer::Writable(0x8000, 16)]);
    }
    doorbell.write(1).unwrap();
    let end = Instant::now() + PATIENCE;
    let written = loop {
        if let Some((_, written)) = driver.take_used() {
            break written;
        }
        assert!(Instant::now() < end, "nothing is told");
    };
    assert_eq!(written, 4);
    let mut event = [0; 5];
    memory.read_slice(&mut event, GuestAddress(0x8000)).unwrap();
    assert_eq!(event, [0, 0, 0, 0, 0xff]);
    // Once.
    assert_eq!(device.stop().len(), 3);
    let _doorbell = go_on(&mut device, &memory);
    device.stop();
    assert!(!driver.has_used());
}

#[test]
fn a_driver_that_starts_over_has_no_connections_to_lose() {
    for ring in Guest::rings() {
        let host = Host::new();
        let device = host.device(|options| options.lost_connections = true);
        let mut guest = Guest::start(device, ring, 16);
        let at = guest.driver.place(&[0xff; 16]);
        guest.driver.submit(2, &[Buffer::Writable(at, 16)]);
        // What is left of a connection that nobody knows any more is refused.
        let data = packet(Operation::Data, 10, 1, 4);
        guest.send_raw(&data, b"lost");
        while guest.others.is_empty() {
            guest.pump();
        }
        assert_eq!(guest.others, [data.refusal()]);
        guest.driver.transport.pause();
        assert!(!guest.driver.queues[2].has_used());
        assert_eq!(guest.driver.status() & status::NEEDS_RESET, 0);
    }
}

#[test]
fn drop_closes_everything() {
    let host = Host::new();
    let server = host.listen(1);
    let mut guest = Guest::start(host.device(|_| {}), 0, 16);
    guest.connect(10, 1, 1 << 20);
    let mut stream = accept(&server);
    drop(guest);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}
