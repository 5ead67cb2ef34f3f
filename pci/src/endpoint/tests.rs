use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::{IrqLine, Msi, MsiSink};

use super::*;

#[derive(Debug, Default)]
struct Probe {
    level: AtomicBool,
    sent: Mutex<Vec<Msi>>,
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

struct Machine {
    probe: Arc<Probe>,
    endpoint: Endpoint,
    msix: Arc<Msix>,
    intx: Arc<Intx>,
}

fn machine() -> Machine {
    let probe = Arc::new(Probe::default());
    let mut endpoint = Endpoint::new(
        Identity {
            vendor_id: 0x1af4,
            device_id: 0x1044,
            revision_id: 1,
            class: [0xff, 0, 0],
            subsystem_vendor_id: 0x1af4,
            subsystem_id: 0x40,
        },
        EndpointKind::Integrated,
    )
    .unwrap();
    let msix = Arc::new(Msix::new(2, probe.clone()));
    let place = MsixPlace {
        bar: 0,
        table_offset: 0,
        pending_offset: 0x800,
    };
    endpoint.add_msix(msix.clone(), place).unwrap();
    let intx = Arc::new(Intx::new(probe.clone()));
    endpoint.set_intx(intx.clone(), 17);
    Machine {
        probe,
        endpoint,
        msix,
        intx,
    }
}

impl Machine {
    fn level(&self) -> bool {
        self.probe.level.load(Ordering::SeqCst)
    }

    fn read(&self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.endpoint.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Offset of a capability.
    fn find(&self, id: CapabilityId) -> u16 {
        let mut offset = self.read(0x34) & 0xff;
        while offset != 0 {
            let head = self.read(u16::try_from(offset).unwrap());
            if head & 0xff == id as u32 {
                return u16::try_from(offset).unwrap();
            }
            offset = head >> 8 & 0xff;
        }
        panic!("no capability {id:?}")
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        assert_eq!(self.endpoint.write(offset, data), ConfigWrite::Done);
    }
}

#[test]
fn the_pin_follows_causes_and_the_disable_bit() {
    let mut machine = machine();
    assert_eq!(machine.read(0x3c), 0x0111);
    machine.intx.raise(1);
    assert!(machine.level());
    assert_eq!(machine.read(4) >> 16, 0x18);
    let mut status = [0; 1];
    machine.endpoint.read(6, &mut status);
    assert_eq!(status, [0x18]);
    machine.write(4, &command::INTX_DISABLE.to_le_bytes());
    assert!(!machine.level());
    assert_eq!(
        machine.read(4) >> 16,
        0x18,
        "the status tells of a disabled pin"
    );
    machine.write(4, &[0; 2]);
    assert!(machine.level());
    assert_eq!(machine.intx.take(), 1);
    assert!(!machine.level());
    assert_eq!(machine.read(4) >> 16, 0x10);
}

#[test]
fn msix_takes_the_place_of_the_pin() {
    let mut machine = machine();
    let control = machine.find(CapabilityId::MsiX) + 2;
    machine.intx.raise(1);
    machine.write(control, &0x8000_u16.to_le_bytes());
    assert!(machine.msix.is_enabled() && !machine.level());
    machine.msix.write_table(8, &77_u64.to_le_bytes());
    machine.msix.fire(0);
    assert!(machine.probe.sent.lock().unwrap().is_empty());
    machine.write(4, &command::BUS_MASTER.to_le_bytes());
    assert_eq!(machine.probe.sent.lock().unwrap()[0].data, 77);
    // What is read is what counts, whatever the width of the access.
    assert_eq!(machine.read(control - 2) >> 16, 0x8001);
    let mut byte = [0];
    machine.endpoint.read(control + 1, &mut byte);
    assert_eq!(byte, [0x80]);
    machine.write(control - 2, &[0xff; 4]);
    assert_eq!(machine.read(control - 2) >> 16, 0xc001);
    // A byte is enough.
    machine.write(control + 1, &[0]);
    assert!(!machine.msix.is_enabled() && machine.level());
    assert_eq!(machine.read(control - 2) >> 16, 1);
}

#[test]
fn a_function_level_reset_is_asked_for_by_one_bit() {
    let mut machine = machine();
    let express = machine.find(CapabilityId::Express);
    assert_eq!(machine.read(express) >> 16, 0x92);
    assert_eq!(machine.read(express + 4), 1 << 28 | 1 << 15);
    machine.write(express + 8, &0x7fff_u16.to_le_bytes());
    assert_eq!(machine.read(express + 8), 0x78ff);
    machine.write(4, &[0xff; 2]);
    let control = machine.find(CapabilityId::MsiX) + 2;
    machine.write(control, &[0xff; 2]);
    for write in [(express + 8, &[0, 0x80][..]), (express + 9, &[0x80][..])] {
        machine.intx.raise(1);
        let outcome = machine.endpoint.write(write.0, write.1);
        assert_eq!(outcome, ConfigWrite::Reset);
        assert_eq!(
            machine.intx.take(),
            1,
            "what comes before the reset arrives"
        );
        machine.endpoint.reset();
        assert_eq!(machine.read(express + 8), 0x2810);
        assert_eq!(machine.read(4), 0x0010_0000);
        assert!(!machine.msix.is_enabled() && !machine.level());
        assert_eq!(machine.read(0x3c), 0x0111);
    }
}

#[test]
fn a_function_that_sleeps_does_nothing_and_forgets_nothing() {
    let mut machine = machine();
    let bar = Bar {
        size_bytes: 0x1000,
        width: crate::BarWidth::Bits32,
        prefetchable: false,
    };
    machine.endpoint.add_bar(0, bar).unwrap();
    let control = machine.find(CapabilityId::PowerManagement) + 4;
    assert_eq!(machine.read(control - 4) >> 16, 3);
    machine.write(0x10, &0xc000_0000_u32.to_le_bytes());
    machine.write(4, &[6, 0]);
    let msix = machine.find(CapabilityId::MsiX) + 2;
    machine.write(msix, &0x8000_u16.to_le_bytes());
    machine.msix.write_table(8, &77_u64.to_le_bytes());
    let decodes = |machine: &Machine| machine.endpoint.configuration().decoded(0).is_some();
    for (state, sleeps) in [(1, false), (2, false), (3, true), (1, true), (2, true)] {
        machine.write(control, &[state, 0]);
        assert_eq!(decodes(&machine), !sleeps, "state {state}");
        assert_eq!(machine.endpoint.is_bus_master(), !sleeps);
        assert_eq!(machine.read(control), if sleeps { 0xb } else { 8 });
    }
    machine.msix.fire(0);
    assert!(machine.probe.sent.lock().unwrap().is_empty());
    // The rest of the register leaves the state as it is.
    machine.write(control + 1, &[0xff]);
    assert_eq!(machine.read(control), 0xb);
    machine.write(control, &[0, 0]);
    assert!(decodes(&machine) && machine.endpoint.is_bus_master());
    assert_eq!(machine.probe.sent.lock().unwrap().len(), 1);
    machine.write(control, &[3]);
    machine.endpoint.reset();
    assert_eq!(machine.read(control), 8);
}

#[test]
fn the_pin_of_a_function_that_sleeps_is_still() {
    let mut machine = machine();
    let control = machine.find(CapabilityId::PowerManagement) + 4;
    machine.intx.raise(1);
    machine.write(control, &[3]);
    assert!(!machine.level());
    machine.write(control, &[0]);
    assert!(machine.level());
}

#[test]
fn an_endpoint_behind_a_port_has_a_link() {
    let identity = Identity {
        vendor_id: 0x1af4,
        device_id: 0x1044,
        revision_id: 1,
        class: [0xff, 0, 0],
        subsystem_vendor_id: 0x1af4,
        subsystem_id: 0x40,
    };
    let endpoint = Endpoint::new(identity, EndpointKind::Linked).unwrap();
    let read = |offset| {
        let mut data = [0; 4];
        endpoint.read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(read(0x40) >> 16, 2, "an endpoint");
    assert_eq!(read(0x4c) & 0x3ff, 0x11, "link capabilities");
    assert_eq!(read(0x50) >> 16, 0x11, "link status");
    assert_eq!(read(0x54), 0, "no slot");
    assert_eq!(read(0x6c), 2, "link capabilities 2");
}
