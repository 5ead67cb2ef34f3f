use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;
use crate::Interrupt as _;
use crate::devices::rng::Rng;
use crate::testing::transport::{PciMachine, part};
use crate::testing::{Buffer, Driver, Kind, RecordedDoorbells, memory, register};
use crate::transport::status;

mod late;

const BASE: u64 = Driver::BASE_ADDRESS;

fn driver() -> Driver {
    Driver::on(Kind::Pci, Box::new(Rng::new()))
}

fn exercise(driver: &mut Driver) {
    let buffer = driver.place(&[0; 64]);
    assert_eq!(driver.request(0, &[Buffer::Writable(buffer, 64)]), 64);
}

#[test]
fn a_driver_finds_all_parts() {
    let driver = driver();
    let machine = driver.transport.pci();
    assert_eq!(machine.config_number(0), 0x1044_1af4);
    assert_eq!(machine.config_number(8), 0xff00_0001);
    assert_eq!(machine.config_number(0x2c), 0x1044_1af4);
    for (kind, offset, length) in [
        (1, part::COMMON, 0x3c),
        (2, part::NOTIFY, 0x1000),
        (3, part::ISR, 1),
        (4, part::DEVICE, 0x1000),
        (5, 0, 0),
    ] {
        let capability = machine.find_capability(9, kind).expect("a capability");
        assert_eq!(machine.config_number(capability + 4), 0, "of kind {kind}");
        assert_eq!(u64::from(machine.config_number(capability + 8)), offset);
        assert_eq!(machine.config_number(capability + 12), length);
    }
    let notify = machine.find_capability(9, 2).expect("doorbells");
    assert_eq!(machine.config_number(notify + 16), 4);
    assert_eq!(machine.config_number(notify) >> 16 & 0xff, 20);
    let msix = machine.find_capability(0x11, 0).expect("MSI-X");
    assert_eq!(machine.config_number(msix) >> 16, 0x8001);
    assert_eq!(machine.common_u16(0x12), 1);
    assert!(machine.find_capability(0x10, 0).is_some());
}

#[test]
fn fields_take_their_own_width() {
    let mut driver = driver();
    assert!(driver.negotiate(0));
    let machine = driver.transport.pci();
    machine.write(BASE + 0x20, &0x1_2345_6780_u64.to_le_bytes());
    let mut whole = [0; 8];
    machine.read(BASE + 0x20, &mut whole);
    assert_eq!(u64::from_le_bytes(whole), 0x1_2345_6780);
    let mut half = [0; 4];
    machine.read(BASE + 0x24, &mut half);
    assert_eq!(u32::from_le_bytes(half), 1);
    machine.write(BASE + 0x14, &[0, 0]);
    machine.write(BASE + 0x20, &[0; 2]);
    let mut status = [0xff; 2];
    machine.read(BASE + 0x14, &mut status);
    assert_eq!(status, [0; 2]);
    machine.read(BASE + 0x20, &mut whole);
    assert_eq!(u64::from_le_bytes(whole), 0x1_2345_6780);
    assert_eq!(machine.common_u16(0x1e), 0);
    machine.set_common_u16(0x16, 1);
    assert_eq!(machine.common_u16(0x18), 0, "no second queue");
    // A vector that is not there is none.
    for offset in [0x10, 0x1a] {
        machine.set_common_u16(offset, 2);
        assert_eq!(machine.common_u16(offset), 0xffff);
    }
}

#[test]
fn the_window_reaches_registers_through_the_configuration_space() {
    let mut driver = driver();
    assert!(driver.negotiate(0));
    let machine = driver.transport.pci();
    let window = machine.find_capability(9, 5).unwrap();
    let select = |offset: u32, length: u32| {
        machine.write_config(window + 4, &[0]);
        machine.write_config(window + 8, &offset.to_le_bytes());
        machine.write_config(window + 12, &length.to_le_bytes());
    };
    select(0x14, 1);
    assert_eq!(machine.config_number(window + 16), 0xb);
    select(0x16, 2);
    machine.write_config(window + 16, &7_u32.to_le_bytes());
    assert_eq!(machine.common_u16(0x16), 7);
    // Nothing happens with what cannot be accessed.
    for (offset, length) in [(0x16, 3), (0x17, 2), (0x8000, 4), (u32::MAX, 4), (0x16, 0)] {
        select(offset, length);
        machine.write_config(window + 16, &9_u32.to_le_bytes());
        assert_eq!(machine.config_number(window + 16), 9);
    }
    select(0x16, 2);
    machine.write_config(window + 4, &[1]);
    machine.write_config(window + 16, &9_u32.to_le_bytes());
    assert_eq!(machine.common_u16(0x16), 7);
    select(0x14, 1);
    machine.write_config(window + 16, &[0; 4]);
    assert_eq!(driver.status(), 0);
}

#[test]
fn a_device_without_msix_drives_its_pin() {
    #[derive(Debug, Default)]
    struct Pin(AtomicBool);
    impl IrqLine for Pin {
        fn set_level(&self, asserted: bool) {
            self.0.store(asserted, Ordering::SeqCst);
        }
    }
    let pin = Arc::new(Pin::default());
    let messages = Arc::new(crate::testing::transport::Messages::default());
    let interrupts = PciInterrupts {
        messages: messages.clone(),
        pin: pin.clone(),
        interrupt_line: 16,
    };
    let registry = Arc::new(RecordedDoorbells::default());
    let (device, kind) = (Box::new(Rng::new()), EndpointKind::Linked);
    let mut transport = PciTransport::new(device, kind, memory(), interrupts, registry).unwrap();
    let level = || pin.0.load(Ordering::SeqCst);
    let mut isr = [0xff];
    transport.core.link.signal_used(0);
    assert!(level());
    transport.core.link.signal_config_change();
    transport.read_bar(0, part::ISR, &mut isr);
    assert_eq!((isr, level()), ([3], false));
    transport.read_bar(0, part::ISR, &mut isr);
    assert_eq!(isr, [0]);
    transport.core.link.signal_used(0);
    assert_eq!(transport.write_bar(0, 0x14, &[0]), Effect::None);
    assert!(!level(), "a reset leaves nothing to tell");
    assert!(messages.take().is_empty());
}

#[test]
fn each_event_has_its_vector() {
    let mut driver = driver();
    driver.start(0, 8);
    exercise(&mut driver);
    assert_eq!(driver.wait_interrupt(), 1);
    let machine = driver.transport.pci();
    let transport = machine.transport.lock().unwrap();
    transport.core.link.signal_config_change();
    drop(transport);
    let machine = driver.transport.pci();
    assert_eq!(machine.messages.take(), [0]);
    let mut isr = [0];
    machine.read(BASE + part::ISR, &mut isr);
    assert_eq!(isr, [2]);
    // Without a vector there is silence.
    machine.set_common_u16(0x16, 0);
    machine.set_common_u16(0x1a, 0xffff);
    exercise(&mut driver);
    driver.transport.pause();
    assert!(!driver.interrupted());
}

#[test]
fn a_queue_is_reset_by_itself() {
    for ring in [0, feature::RING_PACKED] {
        reset_a_queue(ring);
    }
}

fn reset_a_queue(ring: u64) {
    let mut driver = driver();
    driver.start(ring | feature::RING_RESET, 8);
    for _ in 0..3 {
        exercise(&mut driver);
        let machine = driver.transport.pci();
        machine.set_common_u16(0x16, 0);
        machine.set_common_u16(0x3a, 1);
        assert_eq!((machine.common_u16(0x3a), machine.common_u16(0x1c)), (0, 0));
        driver.kick(0);
        driver.queues.clear();
        driver.add_queue(4);
        assert_eq!(driver.transport.pci().common_u16(0x1c), 1);
    }
    exercise(&mut driver);
    assert_eq!(driver.status(), 0xf);

    // Not without its feature, nor before the driver is up.
    driver.start(ring, 8);
    driver.transport.pci().set_common_u16(0x16, 0);
    driver.transport.pci().set_common_u16(0x3a, 1);
    assert_eq!(driver.transport.pci().common_u16(0x1c), 1);
    assert!(driver.negotiate(feature::RING_RESET));
    driver.add_queue(8);
    driver.transport.pci().set_common_u16(0x3a, 1);
    assert_eq!(driver.transport.pci().common_u16(0x1c), 1);
}

#[test]
fn doorbells_follow_their_registers() {
    let mut driver = driver();
    driver.start(0, 8);
    let registered = |driver: &Driver| driver.doorbells.registered.lock().unwrap().clone();
    let at = |address| bus::Doorbell {
        address,
        value: None,
    };
    assert_eq!(registered(&driver), [at(BASE + part::NOTIFY)]);
    let machine = driver.transport.pci();
    machine.write_config(0x10, &[0xff; 4]);
    assert_eq!(registered(&driver), []);
    let machine = driver.transport.pci();
    let moved = u32::try_from(BASE + 0x1_0000).unwrap();
    machine.write_config(0x10, &moved.to_le_bytes());
    assert_eq!(registered(&driver), [at(BASE + 0x1_3000)]);
    let machine = driver.transport.pci();
    machine.write_config(4, &[0, 0]);
    assert_eq!(registered(&driver), []);
    let machine = driver.transport.pci();
    machine.write_config(4, &[6, 0]);
    machine.write_config(0x10, &u32::try_from(BASE).unwrap().to_le_bytes());
    exercise(&mut driver);
}

#[test]
fn a_function_level_reset_resets_the_device() {
    let mut driver = driver();
    driver.start(0, 8);
    exercise(&mut driver);
    let machine = driver.transport.pci();
    let express = machine.find_capability(0x10, 0).unwrap();
    machine.write_config(express + 8, &0x8000_u16.to_le_bytes());
    assert!(driver.doorbells.registered.lock().unwrap().is_empty());
    let machine = driver.transport.pci();
    assert_eq!(machine.config_number(0x10), 4);
    machine.write_config(0x10, &u32::try_from(BASE).unwrap().to_le_bytes());
    machine.write_config(4, &[6, 0]);
    let msix = machine.find_capability(0x11, 0).unwrap();
    assert_eq!(machine.config_number(msix) >> 16, 1);
    assert_eq!(driver.status(), 0);
    driver.start(0, 8);
    exercise(&mut driver);
}

#[test]
fn a_function_level_reset_ends_the_device_before_its_interrupts() {
    let mut driver = Driver::on(Kind::Pci, Box::<late::Late>::default());
    driver.start(0, 8);
    let machine = driver.transport.pci();
    let express = machine.find_capability(0x10, 0).unwrap();
    machine.write_config(express + 8, &0x8000_u16.to_le_bytes());
    assert_eq!(machine.messages.take(), [1]);
}

#[test]
fn a_device_that_is_no_bus_master_leaves_memory_and_interrupts_alone() {
    let mut driver = Driver::on(Kind::Pci, Box::<late::Late>::default());
    driver.start(0, 8);
    let stops = |driver: &Driver| driver.memory.read_obj::<u32>(late::COUNTER).unwrap();
    let command = |driver: &Driver, value| driver.transport.pci().write_config(4, &[value, 4]);
    let messages = |driver: &Driver| driver.transport.pci().messages.take();
    command(&driver, 2);
    assert_eq!(stops(&driver), 1, "it stops before the write returns");
    assert!(messages(&driver).is_empty());
    // Nothing starts it meanwhile, and nothing is lost.
    driver.transport.pause();
    driver.transport.resume();
    driver.write(register::STATUS, 0xf);
    command(&driver, 2);
    assert_eq!(stops(&driver), 1);
    command(&driver, 6);
    assert_eq!(messages(&driver), [1]);
    command(&driver, 6);
    command(&driver, 2);
    assert_eq!(stops(&driver), 2);

    // Its driver's successor resets it, and starts it before it is a bus master.
    driver.start(0, 8);
    assert_eq!((driver.status(), stops(&driver)), (0xf, 2));
    assert!(driver.doorbells.registered.lock().unwrap().is_empty());
    command(&driver, 6);
    assert_eq!(driver.doorbells.registered.lock().unwrap().len(), 1);
    driver.transport.pause();
    assert_eq!(stops(&driver), 3);
    // A paused machine does not become a running one by this.
    command(&driver, 2);
    command(&driver, 6);
    driver.transport.resume();
    command(&driver, 2);
    assert_eq!(stops(&driver), 4);
}

#[test]
fn a_device_whose_requests_are_not_forwarded_stands() {
    let mut driver = Driver::on(Kind::Pci, Box::<late::Late>::default());
    driver.start(0, 8);
    let stops = |driver: &Driver| driver.memory.read_obj::<u32>(late::COUNTER).unwrap();
    let forward = |driver: &Driver, forwarded| {
        let machine = driver.transport.pci();
        machine
            .transport
            .lock()
            .unwrap()
            .requests_forwarded(forwarded);
        machine.messages.take()
    };
    assert!(forward(&driver, false).is_empty());
    assert_eq!(stops(&driver), 1);
    assert_eq!(forward(&driver, true), [1]);
    driver.transport.pci().write_config(4, &[2, 4]);
    assert_eq!(stops(&driver), 2);
    assert!(forward(&driver, false).is_empty());
    assert!(forward(&driver, true).is_empty(), "it is no bus master");
    // A conventional reset leaves nothing behind.
    driver.transport.pci().write_config(4, &[6, 4]);
    driver.transport.pci().transport.lock().unwrap().reset();
    assert_eq!(stops(&driver), 3);
    assert!(driver.doorbells.registered.lock().unwrap().is_empty());
    assert_eq!(driver.transport.pci().config_number(4), 0x0010_0000);
}

#[test]
fn a_device_goes_on_when_it_is_a_bus_master_again() {
    let mut driver = driver();
    driver.start(0, 8);
    for _ in 0..3 {
        driver.transport.pci().write_config(4, &[2, 4]);
        let buffer = driver.place(&[0; 64]);
        driver.submit(0, &[Buffer::Writable(buffer, 64)]);
        driver.transport.pci().write_config(4, &[6, 4]);
        driver.wait_used(0);
        exercise(&mut driver);
    }
}

/// An access of a hostile guest.
#[derive(Debug, Clone)]
enum Access {
    Register(u64, Vec<u8>),
    Configuration(u16, Vec<u8>),
}

fn access() -> impl Strategy<Value = Access> {
    let bytes = || {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..9),
            prop::collection::vec(0_u8..16, 1..5),
            Just(vec![0xf]),
        ]
    };
    let offset =
        prop_oneof![4 => 0_u64..0x3c, 1 => Just(0x14), 1 => 0_u64..0x8000, 1 => 0x4000_u64..0x4020];
    prop_oneof![
        3 => (offset, bytes()).prop_map(|(offset, data)| Access::Register(offset, data)),
        1 => (0_u16..256, bytes()).prop_map(|(offset, data)| Access::Configuration(offset, data)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_accesses_confuses_the_transport(accesses in prop::collection::vec(access(), 0..200)) {
        let driver = driver();
        let machine: &PciMachine = driver.transport.pci();
        let transport: &Mutex<PciTransport> = &machine.transport;
        for access in accesses {
            let mut read = [0; 8];
            match access {
                Access::Register(offset, data) => {
                    let mut transport = transport.lock().unwrap();
                    transport.read_bar(0, offset, &mut read[..data.len()]);
                    let effect = transport.write_bar(0, offset, &data);
                    prop_assert_eq!(effect, Effect::None);
                }
                Access::Configuration(offset, data) => {
                    machine.read_config(offset, &mut read[..data.len()]);
                    machine.write_config(offset, &data);
                }
            }
            let core = &transport.lock().unwrap().core;
            let status = core.status();
            prop_assert!(status & status::FEATURES_OK == 0 || status & status::DRIVER != 0);
            prop_assert!(status & status::DRIVER_OK == 0 || status & status::FEATURES_OK != 0);
            prop_assert!(!core.has_doorbells() || status & status::DRIVER_OK != 0);
        }
    }
}

#[test]
fn names_of_registers_lead_to_the_same_place() {
    let mut driver = driver();
    driver.start(0, 8);
    driver.write(register::QUEUE_SEL, 0);
    assert_eq!(driver.read(register::QUEUE_SIZE_MAX), 8);
    assert_eq!(driver.read(register::QUEUE_READY), 1);
    assert_eq!(driver.read(register::CONFIG_GENERATION), 0);
}
