//! All chips on one bus, where the machine has them, under a guest that does anything.

use std::sync::{Arc, Mutex, MutexGuard};

use arch::layout::{gsi, port};
use bus::{Effect, IrqLine, PioBus, PioDevice};
use devices::{
    AcpiPm, CmosRtc, DebugPort, HostClock, I8042, IoApic, Pic, Pit, PvPanic, RamSize,
    ResetRegister, Serial,
};
use proptest::prelude::*;

/// The interrupt controllers as their owner holds them: one lock, after those of devices.
#[derive(Debug, Default)]
struct Interrupts {
    chips: Mutex<(Pic, IoApic)>,
}

impl Interrupts {
    fn lock(&self) -> MutexGuard<'_, (Pic, IoApic)> {
        self.chips.lock().unwrap()
    }
}

#[derive(Debug)]
struct Line {
    interrupts: Arc<Interrupts>,
    gsi: u32,
}

impl IrqLine for Line {
    fn set_level(&self, asserted: bool) {
        let (pic, ioapic) = &mut *self.interrupts.lock();
        pic.set_level(self.gsi, asserted);
        let pin = match self.gsi {
            gsi::PIT => gsi::PIT_IOAPIC,
            gsi => gsi,
        };
        let message = ioapic.set_level(pin, asserted);
        assert!(message.is_none_or(|message| message.address >> 20 == 0xfee));
    }
}

#[derive(Debug)]
struct PicPorts {
    interrupts: Arc<Interrupts>,
    first: u16,
}

impl PioDevice for PicPorts {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        self.interrupts.lock().0.read(self.first + offset, data);
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        self.interrupts.lock().0.write(self.first + offset, data);
        Effect::None
    }
}

fn platform() -> (PioBus, Arc<Interrupts>) {
    let interrupts = Arc::new(Interrupts::default());
    let clock = Arc::new(HostClock::new());
    let line = |gsi| -> Arc<dyn IrqLine> {
        Arc::new(Line {
            interrupts: interrupts.clone(),
            gsi,
        })
    };
    let ram = RamSize {
        below_4_gib_bytes: 1 << 30,
        above_4_gib_bytes: 0,
    };
    let pit = Pit::new(line(gsi::PIT), clock.clone());
    let keyboard = I8042::new(line(1));
    let mut bus = PioBus::default();
    let mut place = |start: u16, length: u16, device: Arc<Mutex<dyn PioDevice>>| {
        bus.insert(start, length, device).unwrap();
    };
    for ports in [port::PIC_PRIMARY, port::PIC_SECONDARY, port::PIC_ELCR] {
        let first = ports.start;
        let interrupts = interrupts.clone();
        place(
            first,
            2,
            Arc::new(Mutex::new(PicPorts { interrupts, first })),
        );
    }
    place(port::PIT.start, 4, Arc::new(Mutex::new(pit.counters())));
    place(
        port::PIT_CONTROL,
        1,
        Arc::new(Mutex::new(pit.system_control_b())),
    );
    place(port::I8042_DATA, 1, Arc::new(Mutex::new(keyboard.data())));
    place(
        port::I8042_COMMAND,
        1,
        Arc::new(Mutex::new(keyboard.command())),
    );
    place(
        port::SYSTEM_CONTROL_A,
        1,
        Arc::new(Mutex::new(keyboard.system_control_a())),
    );
    place(
        port::CMOS_RTC.start,
        2,
        Arc::new(Mutex::new(CmosRtc::new(line(gsi::RTC), clock.clone(), ram))),
    );
    place(
        port::DEBUG,
        1,
        Arc::new(Mutex::new(DebugPort::new(clock.clone()))),
    );
    place(
        port::COM1.start,
        8,
        Arc::new(Mutex::new(Serial::new(
            line(gsi::COM1),
            Box::new(std::io::sink()),
        ))),
    );
    place(port::PVPANIC, 1, Arc::new(Mutex::new(PvPanic::new())));
    place(
        port::ACPI_PM.start,
        12,
        Arc::new(Mutex::new(AcpiPm::new(line(gsi::SCI), clock))),
    );
    place(port::RESET, 1, Arc::new(Mutex::new(ResetRegister::new())));
    (bus, interrupts)
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![
        0x20u16..0x22,
        0x40u16..0x44,
        0x60u16..0x66,
        0x70u16..0x72,
        0xa0u16..0xa2,
        0x3f8u16..0x400,
        0x4d0u16..0x4d2,
        0x600u16..0x60c,
        prop::sample::select(vec![0x80u16, 0x92, 0x505, 0xcf9, 0xcf8, 0xffff]),
    ]
}

/// COM1 tells of its empty transmitter, and a CPU takes the interrupt from the primary 8259.
#[test]
fn a_serial_interrupt_reaches_the_8259() {
    let (bus, interrupts) = platform();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 0x04),
        (0x21, 0x01),
        (0x21, 0x00),
        (0x3f9, 0x02),
    ] {
        assert_eq!(bus.write(port, &[value]), Effect::None);
    }
    assert!(interrupts.lock().0.has_interrupt());
    assert_eq!(interrupts.lock().0.acknowledge(), 0x24);
    let mut data = [0xff];
    bus.read(0x3fa, &mut data);
    assert_eq!(data, [0x02]);
    assert!(!interrupts.lock().0.has_interrupt());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No access of a guest, of any width anywhere, panics, deadlocks, or has an effect of another port.
    #[test]
    fn a_guest_can_do_anything(accesses in prop::collection::vec((ports(), 0usize..3, prop::option::of(any::<[u8; 4]>())), 0..400)) {
        let (bus, interrupts) = platform();
        for (port, width, value) in accesses {
            let length = 1 << width;
            match value {
                Some(value) => {
                    let effect = bus.write(port, &value[..length]);
                    let may_have = [
                        (Effect::None, true),
                        (Effect::PowerOff, port::ACPI_PM.contains(&port)),
                        (Effect::Crash, port == port::PVPANIC),
                        (Effect::Reset, [0x60, 0x64, 0x92, 0xcf9].contains(&port)),
                    ];
                    let is_expected = may_have.contains(&(effect, true));
                    prop_assert!(is_expected, "{:?} by port {:#x}", effect, port);
                }
                None => bus.read(port, &mut [0; 4][..length]),
            }
            let mut chips = interrupts.lock();
            if chips.0.has_interrupt() {
                chips.0.acknowledge();
            }
        }
    }
}
