//! The chips that every machine has, each placed on its ports.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use arch::layout::{gsi, port};
use bus::{PioBus, PioDevice};
use devices::{
    AcpiPm, CmosRtc, DebugPort, HostClock, I8042, Pit, PvPanic, RamSize, ResetRegister, Serial,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::VmmError;
use crate::interrupts::Interrupts;

/// The chips that somebody beside the guest uses.
#[derive(Debug)]
pub struct Platform {
    /// The first serial port.
    pub serial: Arc<Mutex<Serial>>,
    /// Says that the serial port has room for input again.
    pub serial_room: RoomEvent,
    /// Power management.
    pub acpi_pm: Arc<Mutex<AcpiPm>>,
}

impl Platform {
    /// Places the chips; the interval timer only where KVM has none.
    ///
    /// # Errors
    ///
    /// [`VmmError::Host`] when the host gives no event.
    pub fn place(
        pio: &mut PioBus,
        interrupts: &Interrupts,
        own_timer: bool,
        ram: RamSize,
        output: Box<dyn Write + Send>,
    ) -> Result<Self, VmmError> {
        let clock = Arc::new(HostClock::new());
        if own_timer {
            let pit = Pit::new(interrupts.line(gsi::PIT), clock.clone());
            place(pio, port::PIT, shared(pit.counters()))?;
            place_one(pio, port::PIT_CONTROL, shared(pit.system_control_b()))?;
        }
        let room = EventFd::new(EFD_NONBLOCK).map_err(VmmError::host)?;
        let mut serial = Serial::new(interrupts.line(gsi::COM1), output);
        serial.set_input_room_event(room.try_clone().map_err(VmmError::host)?);
        let serial = shared(serial);
        place(pio, port::COM1, serial.clone())?;

        let acpi_pm = shared(AcpiPm::new(interrupts.line(gsi::SCI), clock.clone()));
        place(pio, port::ACPI_PM, acpi_pm.clone())?;

        let i8042 = I8042::new(interrupts.line(gsi::KEYBOARD));
        place_one(pio, port::I8042_DATA, shared(i8042.data()))?;
        place_one(pio, port::I8042_COMMAND, shared(i8042.command()))?;
        let control = i8042.system_control_a();
        place_one(pio, port::SYSTEM_CONTROL_A, shared(control))?;
        let rtc = CmosRtc::new(interrupts.line(gsi::RTC), clock.clone(), ram);
        place(pio, port::CMOS_RTC, shared(rtc))?;
        place_one(pio, port::PVPANIC, shared(PvPanic::new()))?;
        place_one(pio, port::DEBUG, shared(DebugPort::new(clock)))?;
        Ok(Self {
            serial,
            serial_room: RoomEvent(room),
            acpi_pm,
        })
    }
}

/// Places the reset register alone, where there is no PCI, among whose ports it is otherwise.
///
/// # Errors
///
/// [`VmmError::Host`] when something else is there already.
pub fn place_reset_register(pio: &mut PioBus) -> Result<(), VmmError> {
    place_one(pio, port::RESET, shared(ResetRegister::new()))
}

/// Readable when a serial port that left input over has room again.
#[derive(Debug)]
pub struct RoomEvent(EventFd);

impl RoomEvent {
    /// Makes it unreadable until there is room anew.
    pub fn acknowledge(&self) {
        // Nothing to read is no mistake: it may not have been signalled.
        let _ = self.0.read();
    }
}

impl AsFd for RoomEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the event is open for as long as self lives.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

fn shared<T>(device: T) -> Arc<Mutex<T>> {
    Arc::new(Mutex::new(device))
}

fn place(
    pio: &mut PioBus,
    ports: std::ops::Range<u16>,
    device: Arc<Mutex<dyn PioDevice>>,
) -> Result<(), VmmError> {
    pio.insert(ports.start, ports.end - ports.start, device)
        .map_err(VmmError::host)
}

fn place_one(
    pio: &mut PioBus,
    port: u16,
    device: Arc<Mutex<dyn PioDevice>>,
) -> Result<(), VmmError> {
    pio.insert(port, 1, device).map_err(VmmError::host)
}
