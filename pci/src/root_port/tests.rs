use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bus::Msi;

use super::*;

#[derive(Debug, Default)]
struct Probe {
    level: AtomicBool,
    sent: Mutex<Vec<Msi>>,
    permitted: AtomicU32,
}

impl IrqLine for Probe {
    fn set_level(&self, asserted: bool) {
        self.level.store(asserted, Ordering::SeqCst);
    }
}

impl MsiSink for Probe {
    fn send(&self, message: Msi) {
        self.sent.lock().unwrap().push(message);
    }
}

impl SlotListener for Probe {
    fn removal_permitted(&self) {
        self.permitted.fetch_add(1, Ordering::SeqCst);
    }
}

struct Machine {
    probe: Arc<Probe>,
    port: RootPort,
    express: u16,
    msi: u16,
}

impl Machine {
    fn new() -> Self {
        let probe = Arc::new(Probe::default());
        let port = RootPort::new(RootPortOptions {
            slot_number: 3,
            messages: probe.clone(),
            pin: probe.clone(),
            interrupt_line: 17,
            listener: probe.clone(),
        });
        let mut machine = Self {
            probe,
            port: port.unwrap(),
            express: 0,
            msi: 0,
        };
        machine.express = machine.find(0x10);
        machine.msi = machine.find(5);
        machine
    }

    fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.port.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u16, value: u16) {
        self.port.write_config(offset, &value.to_le_bytes());
    }

    fn find(&self, id: u32) -> u16 {
        let mut offset = self.read(0x34) & 0xff;
        while offset != 0 {
            let head = self.read(u16::try_from(offset).unwrap());
            if head & 0xff == id {
                return u16::try_from(offset).unwrap();
            }
            offset = head >> 8 & 0xff;
        }
        panic!("no capability {id:#x}")
    }

    fn control(&mut self, value: u16) {
        self.write(self.express + 0x18, value);
    }

    fn clear(&mut self, events: u16) {
        self.write(self.express + 0x1a, events);
    }

    fn status(&self) -> u32 {
        self.read(self.express + 0x18) >> 16
    }

    fn sent(&self) -> Vec<u32> {
        let sent = std::mem::take(&mut *self.probe.sent.lock().unwrap());
        sent.iter().map(|message| message.data).collect()
    }

    fn level(&self) -> bool {
        self.probe.level.load(Ordering::SeqCst)
    }
}

/// Button, presence, interrupt, link.
const EVENTS: u16 = 1 | 1 << 3 | 1 << 5 | 1 << 12;
const ON: u16 = 1 << 8;
const BLINKS: u16 = 2 << 8;
const OFF: u16 = 3 << 8;

#[test]
fn a_port_says_what_it_is() {
    let mut machine = Machine::new();
    assert_eq!(machine.read(8) >> 8, 0x06_0400);
    assert_eq!(machine.read(0xc) >> 16 & 0xff, 1);
    let express = machine.express;
    // Root port, slot implemented, version 2.
    assert_eq!(machine.read(express) >> 16, 0x142);
    let slot = machine.read(express + 0x14);
    assert_eq!(slot >> 19, 3, "slot number");
    assert_eq!(slot & 0x7_ffff, 0x4_0059);
    let link = machine.read(express + 0xc);
    assert_eq!((link & 0x3ff, link >> 20 & 1, link >> 24), (0x11, 1, 3));
    // Off: there is nothing to be taken away.
    assert_eq!(machine.read(express + 0x18), 0x3c0);
    machine.control(0xffff);
    assert_eq!(machine.read(express + 0x18) & 0xffff, 0x13ef);
    assert_eq!(machine.read(0x3c) & 0xffff, 0x0111);
    // A port has no function-level reset.
    machine.write(express + 8, 0xffff);
    assert_eq!(machine.read(express + 8) & 0xffff, 0x78ff);
    assert_eq!(machine.read(express + 0x18) & 0xffff, 0x13ef);
}

#[test]
fn a_message_is_sent_for_each_reason() {
    let mut machine = Machine::new();
    let msi = machine.msi;
    assert_eq!(machine.read(msi) >> 16, 0x80);
    machine.write(msi + 4, 0x1003);
    assert_eq!(machine.read(msi + 4), 0x1000);
    machine.write(msi + 12, 77);
    machine.write(msi + 2, 1);
    machine.write(4, 4);
    machine.port.set_present(true);
    assert!(machine.sent().is_empty());
    machine.control(EVENTS);
    assert_eq!(machine.sent(), [77], "for what was there before");
    machine.control(EVENTS | ON);
    machine.clear(1 << 3);
    assert!(machine.sent().is_empty(), "the link has changed as well");
    machine.clear(1 << 8);
    assert_eq!(machine.status(), 0x40);
    assert!(!machine.port.request_removal());
    assert_eq!(machine.sent(), [77]);
    machine.clear(1);
    // Held back until the port may send.
    machine.write(4, 0);
    assert!(!machine.port.request_removal());
    assert!(machine.sent().is_empty() && !machine.level());
    machine.write(4, 4);
    assert_eq!(machine.sent(), [77]);
    assert!(!machine.level());
}

#[test]
fn the_pin_is_held_while_there_is_a_reason() {
    let mut machine = Machine::new();
    machine.control(EVENTS);
    machine.port.set_present(true);
    assert!(machine.level());
    assert_eq!(machine.read(4) >> 16, 0x18);
    machine.write(4, 1 << 10);
    assert!(!machine.level());
    machine.write(4, 0);
    assert!(machine.level());
    machine.clear(0xffff);
    assert!(!machine.level());
    assert_eq!(machine.read(4) >> 16, 0x10);
    assert!(machine.sent().is_empty());
}

#[test]
fn the_listener_hears_of_a_permission_once() {
    let mut machine = Machine::new();
    let permitted = |machine: &Machine| machine.probe.permitted.load(Ordering::SeqCst);
    machine.control(EVENTS | OFF);
    machine.port.set_present(true);
    machine.control(EVENTS | BLINKS);
    machine.control(EVENTS | ON);
    assert!(!machine.port.request_removal());
    machine.control(EVENTS | BLINKS);
    assert_eq!(permitted(&machine), 0);
    for _ in 0..3 {
        machine.control(EVENTS | OFF);
        assert_eq!(permitted(&machine), 1);
    }
    // Other registers are no permission.
    machine.control(EVENTS | ON);
    assert!(!machine.port.request_removal());
    machine.clear(0xffff);
    machine.write(4, 6);
    assert_eq!(permitted(&machine), 1);
    machine.port.withdraw_request();
    assert!(!machine.port.removal_is_permitted());
    machine.control(EVENTS | OFF);
    assert!(machine.port.removal_is_permitted());
    assert_eq!(permitted(&machine), 1);
    assert!(machine.port.request_removal());
}

#[test]
fn a_device_that_is_there_at_the_start_has_power() {
    let mut machine = Machine::new();
    machine.port.insert_at_start();
    let control = machine.express + 0x18;
    assert_eq!(machine.read(control), 0x40_01c0);
    assert_eq!(machine.read(machine.express + 0x10) >> 29, 1, "link");
    machine.control(EVENTS);
    assert!(!machine.level(), "nothing has happened");
}
