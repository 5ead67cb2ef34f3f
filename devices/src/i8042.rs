//! Keyboard controller: an 8042 with no keyboard and no mouse, and the two ways to a reset and to the A20
//! gate that a PC has through it and beside it.
//!
//! IBM PC/AT Technical Reference, "Keyboard Controller"; port 0x92: Intel ICH4 datasheet 9.7.5. Runs on
//! vCPU threads. Every command that has an answer is answered at once, since drivers wait half a second for
//! each that is not; whatever is sent to a keyboard comes back as a timeout, so that a probe ends soon. The
//! A20 gate can be set and read, and gates nothing: address line 20 is always on.
//!
//! ```text
//! 0x60  data: answers (read), parameters and bytes for the keyboard (write)
//! 0x64  status (read), command (write)
//! 0x92  system control port A: bit 0 resets, bit 1 is the A20 gate
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{Effect, IrqLine, PioDevice};

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
/// The key switch of the case is not locked.
const STATUS_UNLOCKED: u8 = 1 << 4;
const STATUS_TIMEOUT: u8 = 1 << 6;

const COMMAND_BYTE_INTERRUPT: u8 = 1 << 0;
const COMMAND_BYTE_SYSTEM: u8 = 1 << 2;
const COMMAND_BYTE_KEYBOARD_OFF: u8 = 1 << 4;
const COMMAND_BYTE_MOUSE_OFF: u8 = 1 << 5;
const COMMAND_BYTE_TRANSLATE: u8 = 1 << 6;
const COMMAND_BYTE_RESET: u8 = COMMAND_BYTE_SYSTEM
    | COMMAND_BYTE_KEYBOARD_OFF
    | COMMAND_BYTE_MOUSE_OFF
    | COMMAND_BYTE_TRANSLATE;

/// Line 0 of the output port is the CPU's reset, active low; line 1 the A20 gate. The others read as ones.
const OUTPUT_NOT_RESET: u8 = 1 << 0;
const OUTPUT_A20: u8 = 1 << 1;
const OUTPUT_OTHERS: u8 = 0xcc;
/// Line 4 of the output port: the keyboard's interrupt.
const OUTPUT_INTERRUPT: u8 = 1 << 4;

const SELF_TEST_PASSED: u8 = 0x55;
const PORT_TEST_PASSED: u8 = 0x00;
/// Test of the mouse port: its clock line does not move. There is nothing on it.
const PORT_TEST_STUCK: u8 = 0x01;
/// What the controller says in a device's place when that does not answer: "resend".
const NO_DEVICE: u8 = 0xfe;
/// Input port: the keyboard is not inhibited.
const INPUT_PORT: u8 = 0x80;

const SYSTEM_CONTROL_RESET: u8 = 1 << 0;
const SYSTEM_CONTROL_A20: u8 = 1 << 1;

/// The controller. It gives the machine three devices for the port bus, which share it.
#[derive(Debug)]
pub struct I8042 {
    controller: Arc<Mutex<Controller>>,
}

/// `arch::layout::port::I8042_DATA`, one port.
#[derive(Debug)]
pub struct I8042Data {
    controller: Arc<Mutex<Controller>>,
}

/// `arch::layout::port::I8042_COMMAND`, one port.
#[derive(Debug)]
pub struct I8042Command {
    controller: Arc<Mutex<Controller>>,
}

/// System control port A, `arch::layout::port::SYSTEM_CONTROL_A`, one port.
#[derive(Debug)]
pub struct SystemControlA {
    controller: Arc<Mutex<Controller>>,
    resets: bool,
}

#[derive(Debug)]
struct Controller {
    irq: Arc<dyn IrqLine>,
    memory: [u8; 32],
    /// The byte for the guest to read, and whether it stands for a timeout.
    output: Option<(u8, bool)>,
    last_byte: u8,
    a20: bool,
    /// Where the next byte on the data port goes, as the last command said; else to the keyboard.
    destination: Option<Destination>,
    was_command: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    Memory(u8),
    OutputPort,
    OutputBuffer,
    /// The mouse is not there, and neither is the bit that would say that a byte came from it: so a
    /// driver's loopback test fails, which is how it sees that there is no port for a mouse.
    MouseBuffer,
    Mouse,
}

impl I8042 {
    /// A controller after its power-on self-test. `irq` is the keyboard's interrupt request, 1 on a PC.
    pub fn new(irq: Arc<dyn IrqLine>) -> Self {
        let mut memory = [0; 32];
        memory[0] = COMMAND_BYTE_RESET;
        Self {
            controller: Arc::new(Mutex::new(Controller {
                irq,
                memory,
                output: None,
                last_byte: 0,
                a20: true,
                destination: None,
                was_command: true,
            })),
        }
    }

    /// The device for `arch::layout::port::I8042_DATA`.
    pub fn data(&self) -> I8042Data {
        I8042Data {
            controller: self.controller.clone(),
        }
    }

    /// The device for `arch::layout::port::I8042_COMMAND`.
    pub fn command(&self) -> I8042Command {
        I8042Command {
            controller: self.controller.clone(),
        }
    }

    /// The device for `arch::layout::port::SYSTEM_CONTROL_A`.
    pub fn system_control_a(&self) -> SystemControlA {
        SystemControlA {
            controller: self.controller.clone(),
            resets: false,
        }
    }
}

impl Controller {
    fn read_data(&mut self) -> u8 {
        if let Some((byte, _)) = self.output.take() {
            self.last_byte = byte;
            self.update_irq();
        }
        self.last_byte
    }

    fn read_status(&self) -> u8 {
        let mut status = STATUS_UNLOCKED;
        if self.command_byte() & COMMAND_BYTE_SYSTEM != 0 {
            status |= STATUS_SYSTEM;
        }
        if self.was_command {
            status |= STATUS_COMMAND;
        }
        match self.output {
            None => {}
            Some((_, false)) => status |= STATUS_OUTPUT_FULL,
            Some((_, true)) => status |= STATUS_OUTPUT_FULL | STATUS_TIMEOUT,
        }
        status
    }

    fn write_data(&mut self, value: u8) -> Effect {
        self.was_command = false;
        match self.destination.take() {
            // A byte for the keyboard, whose port that switches on.
            None => {
                self.change_command_byte(|byte| byte & !COMMAND_BYTE_KEYBOARD_OFF);
                self.answer(NO_DEVICE, true);
            }
            Some(Destination::Memory(index)) => {
                if let Some(cell) = self.memory.get_mut(usize::from(index)) {
                    *cell = value;
                }
                self.update_irq();
            }
            Some(Destination::OutputPort) => {
                self.a20 = value & OUTPUT_A20 != 0;
                if value & OUTPUT_NOT_RESET == 0 {
                    return Effect::Reset;
                }
            }
            Some(Destination::OutputBuffer | Destination::MouseBuffer) => {
                self.answer(value, false);
            }
            Some(Destination::Mouse) => self.answer(NO_DEVICE, true),
        }
        Effect::None
    }

    fn write_command(&mut self, value: u8) -> Effect {
        self.was_command = true;
        self.destination = None;
        match value {
            0x20..=0x3f => {
                let cell = self.memory.get(usize::from(value & 0x1f));
                self.answer(cell.copied().unwrap_or(0), false);
            }
            0x60..=0x7f => self.destination = Some(Destination::Memory(value & 0x1f)),
            0xa7 => self.change_command_byte(|byte| byte | COMMAND_BYTE_MOUSE_OFF),
            0xa8 => self.change_command_byte(|byte| byte & !COMMAND_BYTE_MOUSE_OFF),
            0xa9 => self.answer(PORT_TEST_STUCK, false),
            0xaa => {
                self.memory[0] = COMMAND_BYTE_RESET;
                self.answer(SELF_TEST_PASSED, false);
            }
            0xab => self.answer(PORT_TEST_PASSED, false),
            0xad => self.change_command_byte(|byte| byte | COMMAND_BYTE_KEYBOARD_OFF),
            0xae => self.change_command_byte(|byte| byte & !COMMAND_BYTE_KEYBOARD_OFF),
            0xc0 => self.answer(INPUT_PORT, false),
            0xd0 => self.answer(self.output_port(), false),
            0xd1 => self.destination = Some(Destination::OutputPort),
            0xd2 => self.destination = Some(Destination::OutputBuffer),
            0xd3 => self.destination = Some(Destination::MouseBuffer),
            0xd4 => self.destination = Some(Destination::Mouse),
            0xdd => self.a20 = false,
            0xdf => self.a20 = true,
            // Pulses the lines of the output port whose bits are clear.
            0xf0..=0xff if value & OUTPUT_NOT_RESET == 0 => return Effect::Reset,
            _ => {}
        }
        Effect::None
    }

    fn output_port(&self) -> u8 {
        let mut value = OUTPUT_NOT_RESET | OUTPUT_OTHERS;
        if self.a20 {
            value |= OUTPUT_A20;
        }
        if self.output.is_some() {
            value |= OUTPUT_INTERRUPT;
        }
        value
    }

    fn command_byte(&self) -> u8 {
        self.memory[0]
    }

    fn change_command_byte(&mut self, change: impl FnOnce(u8) -> u8) {
        self.memory[0] = change(self.memory[0]);
    }

    fn answer(&mut self, byte: u8, is_timeout: bool) {
        // The buffer holds one byte; a guest that sends the next command before it reads loses the first.
        // Its interrupt falls and rises, so that an edge is seen.
        self.output = None;
        self.update_irq();
        self.output = Some((byte, is_timeout));
        self.update_irq();
    }

    fn update_irq(&self) {
        let enabled = self.command_byte() & COMMAND_BYTE_INTERRUPT != 0;
        self.irq.set_level(enabled && self.output.is_some());
    }
}

impl PioDevice for I8042Data {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = lock(&self.controller).read_data();
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        match data.first() {
            Some(value) => lock(&self.controller).write_data(*value),
            None => Effect::None,
        }
    }
}

impl PioDevice for I8042Command {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            *byte = lock(&self.controller).read_status();
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        match data.first() {
            Some(value) => lock(&self.controller).write_command(*value),
            None => Effect::None,
        }
    }
}

impl PioDevice for SystemControlA {
    fn read(&mut self, _offset: u16, data: &mut [u8]) {
        if let Some(byte) = data.first_mut() {
            let a20 = lock(&self.controller).a20;
            *byte = if a20 { SYSTEM_CONTROL_A20 } else { 0 };
            if self.resets {
                *byte |= SYSTEM_CONTROL_RESET;
            }
        }
    }

    fn write(&mut self, _offset: u16, data: &[u8]) -> Effect {
        let Some(value) = data.first() else {
            return Effect::None;
        };
        lock(&self.controller).a20 = value & SYSTEM_CONTROL_A20 != 0;
        // The bit going from 0 to 1 resets.
        let did_reset = self.resets;
        self.resets = value & SYSTEM_CONTROL_RESET != 0;
        if self.resets && !did_reset {
            Effect::Reset
        } else {
            Effect::None
        }
    }
}

fn lock(controller: &Mutex<Controller>) -> MutexGuard<'_, Controller> {
    controller.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
