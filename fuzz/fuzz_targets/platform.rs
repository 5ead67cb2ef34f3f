//! The chips of the platform on their ports, with time that an input moves on: nothing panics, hangs or
//! grows, and what a port answers is as long as what was asked.
//!
//! An input is a list of accesses, input bytes, interrupts and time; see [`step`].
#![no_main]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use arch::layout::port;
use bus::{PioBus, PioDevice};
use cuddy_fuzz::{Input, ManualClock, Sink};
use devices::{
    AcpiPm, CmosRtc, DebugPort, I8042, IoApic, Pic, Pit, PvPanic, RamSize, ResetRegister, Serial,
};
use libfuzzer_sys::fuzz_target;

const STEPS_MAX: usize = 2000;

/// A terminal that takes some bytes and then none for a while.
#[derive(Debug, Default)]
struct Output {
    refused: u8,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.refused = self.refused.wrapping_add(1);
        match self.refused & 7 {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            1 => Err(io::ErrorKind::Interrupted.into()),
            2 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(bytes.len().min(3)),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Machine {
    bus: PioBus,
    clock: Arc<ManualClock>,
    serial: Arc<Mutex<Serial>>,
    acpi_pm: Arc<Mutex<AcpiPm>>,
    pic: Pic,
    ioapic: IoApic,
}

fn place(bus: &mut PioBus, start: u16, length: u16, device: Arc<Mutex<dyn PioDevice>>) {
    bus.insert(start, length, device).expect("a free range");
}

fn shared<T>(device: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(device))
}

impl Machine {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        let line = || Arc::new(Sink);
        let mut bus = PioBus::default();
        let pit = Pit::new(line(), clock.clone());
        place(&mut bus, port::PIT.start, 4, shared(pit.counters()));
        place(
            &mut bus,
            port::PIT_CONTROL,
            1,
            shared(pit.system_control_b()),
        );
        let serial = shared(Serial::new(line(), Box::new(Output::default())));
        place(&mut bus, port::COM1.start, 8, serial.clone());
        let acpi_pm = shared(AcpiPm::new(line(), clock.clone()));
        let range = port::ACPI_PM;
        place(
            &mut bus,
            range.start,
            range.end - range.start,
            acpi_pm.clone(),
        );
        let i8042 = I8042::new(line());
        place(&mut bus, port::I8042_DATA, 1, shared(i8042.data()));
        place(&mut bus, port::I8042_COMMAND, 1, shared(i8042.command()));
        place(
            &mut bus,
            port::SYSTEM_CONTROL_A,
            1,
            shared(i8042.system_control_a()),
        );
        let ram = RamSize {
            below_4_gib_bytes: 3 << 30,
            above_4_gib_bytes: 1 << 30,
        };
        let rtc = CmosRtc::new(line(), clock.clone(), ram);
        let range = port::CMOS_RTC;
        place(&mut bus, range.start, range.end - range.start, shared(rtc));
        place(&mut bus, port::PVPANIC, 1, shared(PvPanic::new()));
        place(
            &mut bus,
            port::DEBUG,
            1,
            shared(DebugPort::new(clock.clone())),
        );
        place(&mut bus, port::RESET, 1, shared(ResetRegister::new()));
        Self {
            bus,
            clock,
            serial,
            acpi_pm,
            pic: Pic::new(),
            ioapic: IoApic::new(),
        }
    }
}

fn step(machine: &mut Machine, input: &mut Input<'_>) {
    let kind = input.byte();
    let mut data = [0xff; 8];
    let length = input.one_of(&[1, 1, 1, 2, 4]);
    match kind & 15 {
        0..8 => {
            let ports = [
                port::COM1.start + u16::from(kind >> 5),
                port::PIT.start + u16::from(kind >> 6),
                port::PIT_CONTROL,
                port::CMOS_RTC.start + u16::from(kind >> 7),
                port::I8042_DATA,
                port::I8042_COMMAND,
                port::ACPI_PM.start + u16::from(kind >> 4),
                port::SYSTEM_CONTROL_A,
                port::PVPANIC,
                port::DEBUG,
                port::RESET,
                port::COM1.start + 5,
            ];
            let at = input.one_of(&ports);
            if kind & 1 == 0 {
                machine.bus.read(at, &mut data[..length]);
            } else {
                for place in &mut data[..length] {
                    *place = input.byte();
                }
                let _effect = machine.bus.write(at, &data[..length]);
            }
        }
        8 => machine.clock.advance_ns(input.number() & 0xff_ffff_ffff),
        9 => {
            let bytes = input.take(20);
            let mut serial = machine.serial.lock().expect("no panic");
            let room = serial.free_input_bytes();
            assert!(serial.enqueue_input(bytes) <= room.min(bytes.len()));
            assert!(room <= 1 << 16);
        }
        10 => machine.serial.lock().expect("no panic").retry_output(),
        11 => {
            machine
                .acpi_pm
                .lock()
                .expect("no panic")
                .press_power_button();
        }
        12 | 13 => {
            let at = input.one_of(&[0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1]);
            match input.byte() & 3 {
                0 => {
                    machine.pic.read(at, &mut data[..length]);
                }
                1 => {
                    machine.pic.write(at, &[input.byte(), 0][..length.min(2)]);
                }
                2 => machine
                    .pic
                    .set_level(u32::from(input.byte()), input.byte() & 1 != 0),
                _ => {
                    let pending = machine.pic.has_interrupt();
                    let vector = machine.pic.acknowledge();
                    assert!(pending || vector & 7 == 7, "an interrupt from nowhere");
                }
            }
        }
        _ => {
            let pin = u32::from(input.byte());
            match input.byte() & 7 {
                0 => {
                    let at = input.one_of(&[0, 0x10, 0x40, 0x11, u64::MAX]);
                    machine.ioapic.read(at, &mut data[..length]);
                }
                1..4 => {
                    let at = input.one_of(&[0, 0x10, 0x10, 0x40, 0x11]);
                    let value = input.double().to_le_bytes();
                    let _route = machine.ioapic.write(at, &value[..length.min(4)]);
                }
                4 | 5 => {
                    let _message = machine.ioapic.set_level(pin, input.byte() & 1 != 0);
                }
                6 => {
                    let messages = machine.ioapic.end_of_interrupt(input.byte());
                    assert!(messages.iter().count() <= 24);
                }
                _ => {
                    let _message = machine.ioapic.route(pin);
                }
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut machine = Machine::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut machine, &mut input);
    }
});
