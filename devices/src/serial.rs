//! Serial port: a 16550A UART.
//!
//! National Semiconductor PC16550D datasheet (TL/C/8652), section 8 "Registers". Registers are accessed on
//! vCPU threads; the console's thread hands input in, and both hold the device's lock. Bytes leave when
//! the guest writes them: a prompt without a newline is seen at once, and next to the exit that brought
//! it a byte's system call is cheap.
//!
//! vm-superio has a `Serial`. It ignores the FIFO control register, says that its FIFOs are on when they
//! are off, and gives its interrupt as a pulse whose cause a read of IIR forgets, received data included;
//! it also blocks in the host's write. Those are the parts that this product needs, so this is its own.
//!
//! # Back-pressure
//!
//! *Input*: [`Serial::enqueue_input`] takes no more than the receive FIFO holds; once the guest has
//! emptied it, the event given to [`Serial::set_input_room_event`] is signalled. Nothing is overrun.
//!
//! *Output*: when the host's side answers `WouldBlock`, bytes stay in the transmit FIFO and the line status
//! says that it is not empty, which is what a driver waits for. They are tried again with each look at
//! the line status and by [`Serial::retry_output`]. So a reader that stalls makes the guest's driver
//! wait, not the vCPU thread, provided that the writer does not block.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use bus::{Effect, IrqLine, PioDevice};
use vmm_sys_util::eventfd::EventFd;

/// Bytes in each FIFO. A UART whose FIFOs are off holds one byte each way.
const FIFO_BYTES: usize = 16;

/// Receive buffer (read), transmitter holding (write); divisor latch, low, with DLAB.
const DATA: u16 = 0;
/// Interrupt enable; divisor latch, high, with DLAB.
const INTERRUPT_ENABLE: u16 = 1;
/// Interrupt identification (read), FIFO control (write).
const INTERRUPT_IDENTIFICATION: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

const ENABLE_RECEIVED: u8 = 1 << 0;
const ENABLE_TRANSMITTER_EMPTY: u8 = 1 << 1;
const ENABLE_LINE_STATUS: u8 = 1 << 2;
const ENABLE_MODEM_STATUS: u8 = 1 << 3;
const ENABLE_WRITABLE: u8 = 0x0f;

/// Interrupt causes by falling priority (table III of the datasheet).
const CAUSE_LINE_STATUS: u8 = 0b0110;
const CAUSE_RECEIVED: u8 = 0b0100;
/// Fewer bytes than the trigger level, and no more came for a while. Time is not simulated: it is over.
const CAUSE_TIMEOUT: u8 = 0b1100;
const CAUSE_TRANSMITTER_EMPTY: u8 = 0b0010;
const CAUSE_MODEM_STATUS: u8 = 0b0000;
const CAUSE_NONE: u8 = 0b0001;
const IDENTIFICATION_FIFO: u8 = 0b1100_0000;

const FIFO_ENABLE: u8 = 1 << 0;
const FIFO_CLEAR_RECEIVED: u8 = 1 << 1;

const LINE_CONTROL_DIVISOR_LATCH: u8 = 1 << 7;

const MODEM_CONTROL_DATA_TERMINAL_READY: u8 = 1 << 0;
const MODEM_CONTROL_REQUEST_TO_SEND: u8 = 1 << 1;
const MODEM_CONTROL_OUT_1: u8 = 1 << 2;
const MODEM_CONTROL_OUT_2: u8 = 1 << 3;
const MODEM_CONTROL_LOOP: u8 = 1 << 4;
const MODEM_CONTROL_WRITABLE: u8 = 0x1f;

const LINE_STATUS_DATA_READY: u8 = 1 << 0;
const LINE_STATUS_OVERRUN: u8 = 1 << 1;
const LINE_STATUS_HOLDING_EMPTY: u8 = 1 << 5;
const LINE_STATUS_TRANSMITTER_EMPTY: u8 = 1 << 6;

const MODEM_STATUS_DELTAS: u8 = 0x0f;
const MODEM_STATUS_CLEAR_TO_SEND: u8 = 1 << 4;
const MODEM_STATUS_DATA_SET_READY: u8 = 1 << 5;
const MODEM_STATUS_RING: u8 = 1 << 6;
const MODEM_STATUS_CARRIER: u8 = 1 << 7;
/// A terminal is connected and ready.
const MODEM_STATUS_CONNECTED: u8 =
    MODEM_STATUS_CLEAR_TO_SEND | MODEM_STATUS_DATA_SET_READY | MODEM_STATUS_CARRIER;

/// A 16550A on the eight ports of `arch::layout::port::COM1`.
///
/// Its interrupt output is a level that follows the enabled causes. It does not depend on OUT2, as on a PC
/// it would: guests that never set that bit run elsewhere.
pub struct Serial {
    irq: Arc<dyn IrqLine>,
    is_irq_asserted: bool,
    output: Box<dyn Write + Send>,
    has_output_failed: bool,
    input_room: Option<EventFd>,
    /// The console has more input than it could hand in.
    is_input_waiting: bool,
    received: VecDeque<u8>,
    transmit: VecDeque<u8>,
    interrupt_enable: u8,
    /// The transmitter became empty, and nobody has been told yet.
    is_empty_unreported: bool,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    modem_deltas: u8,
    has_overrun: bool,
    scratch: u8,
    divisor: u16,
}

impl Serial {
    /// A port after reset. Guests' bytes go to `output`; if it can answer `WouldBlock`, somebody has to
    /// call [`retry_output`](Self::retry_output) when it is writable again.
    pub fn new(irq: Arc<dyn IrqLine>, output: Box<dyn Write + Send>) -> Self {
        Self {
            irq,
            is_irq_asserted: false,
            output,
            has_output_failed: false,
            input_room: None,
            is_input_waiting: false,
            received: VecDeque::with_capacity(FIFO_BYTES),
            transmit: VecDeque::with_capacity(FIFO_BYTES),
            interrupt_enable: 0,
            is_empty_unreported: false,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            modem_deltas: 0,
            has_overrun: false,
            scratch: 0,
            divisor: 1,
        }
    }

    /// Has `event` signalled when the guest made room after [`enqueue_input`](Self::enqueue_input) could
    /// not take everything. The event should not block when it is written.
    pub fn set_input_room_event(&mut self, event: EventFd) {
        self.input_room = Some(event);
    }

    /// How many bytes [`enqueue_input`](Self::enqueue_input) takes now: 0 to 16.
    pub fn free_input_bytes(&self) -> usize {
        if self.is_loopback() {
            return 0;
        }
        self.fifo_bytes().saturating_sub(self.received.len())
    }

    /// Gives the guest input, and returns how many bytes of it were taken, from the first on. The rest is
    /// to be offered again when the input room event comes.
    pub fn enqueue_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.free_input_bytes());
        self.received.extend(bytes.iter().take(taken));
        self.is_input_waiting = taken < bytes.len();
        self.update_irq();
        taken
    }

    /// Whether bytes of the guest wait for the output to take them.
    pub fn has_pending_output(&self) -> bool {
        !self.transmit.is_empty()
    }

    /// Tries again to write what the output could not take.
    pub fn retry_output(&mut self) {
        if self.has_pending_output() {
            self.send();
            self.update_irq();
        }
    }

    fn read_register(&mut self, register: u16) -> u8 {
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        match register {
            DATA if self.is_divisor_latched() => divisor_low,
            INTERRUPT_ENABLE if self.is_divisor_latched() => divisor_high,
            DATA => self.read_received(),
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_IDENTIFICATION => self.read_identification(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => self.read_line_status(),
            MODEM_STATUS => {
                let status = self.modem_inputs() | self.modem_deltas;
                self.modem_deltas = 0;
                status
            }
            SCRATCH => self.scratch,
            _ => 0xff,
        }
    }

    fn write_register(&mut self, register: u16, value: u8) {
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        match register {
            DATA if self.is_divisor_latched() => {
                self.divisor = u16::from_le_bytes([value, divisor_high]);
            }
            INTERRUPT_ENABLE if self.is_divisor_latched() => {
                self.divisor = u16::from_le_bytes([divisor_low, value]);
            }
            DATA => self.write_transmit(value),
            INTERRUPT_ENABLE => {
                let enabled = value & !self.interrupt_enable;
                self.interrupt_enable = value & ENABLE_WRITABLE;
                // Enabling the cause while it stands reports it, even if it was reported before.
                if enabled & ENABLE_TRANSMITTER_EMPTY != 0 && self.transmit.is_empty() {
                    self.is_empty_unreported = true;
                }
            }
            INTERRUPT_IDENTIFICATION => self.write_fifo_control(value),
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.write_modem_control(value),
            SCRATCH => self.scratch = value,
            // The status registers are for factory tests to write.
            _ => {}
        }
    }

    fn read_received(&mut self) -> u8 {
        let byte = self.received.pop_front().unwrap_or(0);
        if self.received.is_empty() {
            self.announce_input_room();
        }
        byte
    }

    fn read_identification(&mut self) -> u8 {
        let cause = self.cause();
        if cause == CAUSE_TRANSMITTER_EMPTY {
            self.is_empty_unreported = false;
        }
        if self.has_fifos() {
            cause | IDENTIFICATION_FIFO
        } else {
            cause
        }
    }

    fn read_line_status(&mut self) -> u8 {
        if self.has_pending_output() {
            self.send();
        }
        let mut status = 0;
        if !self.received.is_empty() {
            status |= LINE_STATUS_DATA_READY;
        }
        if std::mem::take(&mut self.has_overrun) {
            status |= LINE_STATUS_OVERRUN;
        }
        if self.transmit.is_empty() {
            status |= LINE_STATUS_HOLDING_EMPTY | LINE_STATUS_TRANSMITTER_EMPTY;
        }
        status
    }

    fn write_transmit(&mut self, value: u8) {
        self.is_empty_unreported = false;
        // The line falls before it rises again, so that an edge is seen.
        self.update_irq();
        if self.is_loopback() {
            if self.received.len() < self.fifo_bytes() {
                self.received.push_back(value);
            } else {
                self.has_overrun = true;
            }
            self.is_empty_unreported = true;
        } else if self.transmit.len() < self.fifo_bytes() {
            self.transmit.push_back(value);
            self.send();
        }
        // Else the driver did not wait for the transmitter, and its byte is lost as it is on the wire.
    }

    fn write_fifo_control(&mut self, value: u8) {
        let toggles = (value ^ self.fifo_control) & FIFO_ENABLE != 0;
        // Bytes to be transmitted count as sent, whatever the driver says about the FIFO: it took them.
        if toggles || value & FIFO_CLEAR_RECEIVED != 0 {
            self.received.clear();
            self.has_overrun = false;
            self.announce_input_room();
        }
        self.fifo_control = value;
    }

    fn write_modem_control(&mut self, value: u8) {
        let before = self.modem_inputs();
        let was_loopback = self.is_loopback();
        self.modem_control = value & MODEM_CONTROL_WRITABLE;
        let after = self.modem_inputs();
        // The ring indicator's delta is its trailing edge; those of the others are any change.
        let changed = (before ^ after) & !MODEM_STATUS_RING | before & !after & MODEM_STATUS_RING;
        self.modem_deltas |= changed >> 4;
        if was_loopback && !self.is_loopback() && self.free_input_bytes() > 0 {
            self.announce_input_room();
        }
    }

    /// CTS, DSR, RI and DCD; in loopback they are the port's own RTS, DTR, OUT1 and OUT2.
    fn modem_inputs(&self) -> u8 {
        if !self.is_loopback() {
            return MODEM_STATUS_CONNECTED;
        }
        [
            (MODEM_CONTROL_REQUEST_TO_SEND, MODEM_STATUS_CLEAR_TO_SEND),
            (
                MODEM_CONTROL_DATA_TERMINAL_READY,
                MODEM_STATUS_DATA_SET_READY,
            ),
            (MODEM_CONTROL_OUT_1, MODEM_STATUS_RING),
            (MODEM_CONTROL_OUT_2, MODEM_STATUS_CARRIER),
        ]
        .into_iter()
        .filter(|(output, _)| self.modem_control & output != 0)
        .fold(0, |inputs, (_, input)| inputs | input)
    }

    /// Writes what waits to be transmitted, as far as the host takes it.
    fn send(&mut self) {
        while !self.transmit.is_empty() {
            let (bytes, _) = self.transmit.as_slices();
            match self.output.write(bytes) {
                Ok(written @ 1..) => {
                    self.transmit.drain(..written.min(self.transmit.len()));
                }
                // A signal wants this thread elsewhere; the driver's next look tries again.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    return;
                }
                Ok(_) => self.lose_output(&ErrorKind::WriteZero.into()),
                Err(error) => self.lose_output(&error),
            }
        }
        if !self.has_output_failed
            && let Err(error) = self.output.flush()
            && error.kind() != ErrorKind::WouldBlock
        {
            self.lose_output(&error);
        }
        self.is_empty_unreported = true;
    }

    /// The host's side is broken: the guest goes on as if somebody pulled the cable. Said once.
    fn lose_output(&mut self, error: &io::Error) {
        self.transmit.clear();
        if !std::mem::replace(&mut self.has_output_failed, true) {
            tracing::error!(device = "serial", %error, "output of the guest is lost");
        }
    }

    fn announce_input_room(&mut self) {
        if !std::mem::take(&mut self.is_input_waiting) {
            return;
        }
        if let Some(event) = &self.input_room
            && let Err(error) = event.write(1)
            && error.kind() != ErrorKind::WouldBlock
        {
            tracing::error!(device = "serial", %error, "the console could not be woken");
        }
    }

    /// The enabled cause of highest priority.
    fn cause(&self) -> u8 {
        let enabled = |cause| self.interrupt_enable & cause != 0;
        if enabled(ENABLE_LINE_STATUS) && self.has_overrun {
            CAUSE_LINE_STATUS
        } else if enabled(ENABLE_RECEIVED) && !self.received.is_empty() {
            if self.received.len() >= self.trigger_bytes() {
                CAUSE_RECEIVED
            } else {
                CAUSE_TIMEOUT
            }
        } else if enabled(ENABLE_TRANSMITTER_EMPTY) && self.is_empty_unreported {
            CAUSE_TRANSMITTER_EMPTY
        } else if enabled(ENABLE_MODEM_STATUS) && self.modem_deltas & MODEM_STATUS_DELTAS != 0 {
            CAUSE_MODEM_STATUS
        } else {
            CAUSE_NONE
        }
    }

    fn update_irq(&mut self) {
        let asserted = self.cause() != CAUSE_NONE;
        if asserted != self.is_irq_asserted {
            self.is_irq_asserted = asserted;
            self.irq.set_level(asserted);
        }
    }

    fn has_fifos(&self) -> bool {
        self.fifo_control & FIFO_ENABLE != 0
    }

    fn fifo_bytes(&self) -> usize {
        if self.has_fifos() { FIFO_BYTES } else { 1 }
    }

    /// Received bytes that interrupt at once (FIFO control, bits 7:6).
    fn trigger_bytes(&self) -> usize {
        match (self.has_fifos(), self.fifo_control >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _) => 14,
        }
    }

    fn is_loopback(&self) -> bool {
        self.modem_control & MODEM_CONTROL_LOOP != 0
    }

    fn is_divisor_latched(&self) -> bool {
        self.line_control & LINE_CONTROL_DIVISOR_LATCH != 0
    }
}

impl PioDevice for Serial {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        for (register, byte) in (offset..=u16::MAX).zip(data) {
            *byte = self.read_register(register);
        }
        self.update_irq();
    }

    fn write(&mut self, offset: u16, data: &[u8]) -> Effect {
        for (register, value) in (offset..=u16::MAX).zip(data) {
            self.write_register(register, *value);
        }
        self.update_irq();
        Effect::None
    }
}

impl Debug for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serial")
            .field("received", &self.received)
            .field("transmit", &self.transmit)
            .field("interrupt_enable", &self.interrupt_enable)
            .field("fifo_control", &self.fifo_control)
            .field("line_control", &self.line_control)
            .field("modem_control", &self.modem_control)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
