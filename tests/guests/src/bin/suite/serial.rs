//! The first serial port, both ways, polled and by interrupt.

use runtime::console::{
    COM1, Console, DATA_READY, FIFO_BYTES, LINE_STATUS, TRANSMITTER_EMPTY, initialise,
};
use runtime::interrupts::{self, EOI_LAPIC, EOI_PIC_PRIMARY, count};
use runtime::ioapic::{IoApic, pin_of_isa};
use runtime::report::Test;
use runtime::time::{SECONDS, wait_until};
use runtime::{Machine, lapic, pic, port, print, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("serial-output", output),
    ("serial-string", string_output),
    ("serial-registers", registers),
    ("serial-loopback", loopback),
    ("serial-echo", echo),
    ("serial-echo-polled", echo_polled),
    ("serial-transmit-interrupt", transmit_interrupt),
];

const DATA: u16 = COM1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const INTERRUPT_IDENTITY: u16 = COM1 + 2;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const MODEM_STATUS: u16 = COM1 + 6;
const SCRATCH: u16 = COM1 + 7;

const RECEIVED_ENABLED: u8 = 1;
const TRANSMITTED_ENABLED: u8 = 2;

const COM1_IRQ: u8 = 4;
const VECTOR: u8 = 0x50;

/// Prints `lines` lines of 64 characters that a reader can check.
fn output(machine: &Machine) {
    for line in 0..machine.number("lines", 64) {
        println!("line {line:06} {:=<52}", "");
    }
}

/// Prints by the string instruction, as many bytes at once as one line has.
fn string_output(_: &Machine) {
    for line in 0..8 {
        let mut text = *b"string 0 abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\n";
        text[7] = b'0' + line;
        port::write_string(DATA, &text);
    }
}

/// Scratch, divisor latch, interrupt enable and identity behave as a 16550A's.
fn registers(_: &Machine) {
    for value in [0x00, 0x55, 0xaa, 0xff] {
        port::write_u8(SCRATCH, value);
        assert_eq!(port::read_u8(SCRATCH), value, "scratch");
    }
    port::write_u8(LINE_CONTROL, 0x83);
    port::write_u8(DATA, 0x34);
    port::write_u8(INTERRUPT_ENABLE, 0x12);
    assert_eq!(port::read_u8(DATA), 0x34, "divisor, low");
    assert_eq!(port::read_u8(INTERRUPT_ENABLE), 0x12, "divisor, high");
    port::write_u8(LINE_CONTROL, 0x03);
    assert_eq!(port::read_u8(LINE_CONTROL), 0x03, "line control");
    port::write_u8(INTERRUPT_ENABLE, 0xff);
    assert_eq!(
        port::read_u8(INTERRUPT_ENABLE),
        0x0f,
        "interrupt enable has four bits"
    );
    port::write_u8(INTERRUPT_ENABLE, 0);
    port::write_u8(INTERRUPT_IDENTITY, 0x07);
    assert_eq!(
        port::read_u8(INTERRUPT_IDENTITY) & 0xc1,
        0xc1,
        "FIFOs on, nothing pending"
    );
    port::write_u8(INTERRUPT_IDENTITY, 0);
    assert_eq!(port::read_u8(INTERRUPT_IDENTITY) & 0xc0, 0, "FIFOs off");
    initialise();
}

/// What is sent in loopback mode is received, and modem outputs come back as modem status.
fn loopback(_: &Machine) {
    port::write_u8(MODEM_CONTROL, 0x1a);
    let status = port::read_u8(MODEM_STATUS) & 0xf0;
    for byte in *b"loop" {
        port::write_u8(DATA, byte);
        assert!(
            wait_until(SECONDS, || port::read_u8(COM1 + LINE_STATUS) & DATA_READY
                != 0),
            "nothing comes back"
        );
        assert_eq!(port::read_u8(DATA), byte);
    }
    initialise();
    assert_eq!(status, 0x90, "modem status for RTS and OUT2");
}

/// Sends `bytes` received bytes back, polling for each.
fn echo_polled(machine: &Machine) {
    print!("READY\n");
    for _ in 0..machine.number("bytes", 4096) {
        let byte = Console.receive();
        Console.send(&[byte]);
    }
    println!();
}

/// Routes the port's interrupt as `via` says: `ioapic` (default) or `pic`. Returns the vector.
fn route(machine: &Machine) -> u8 {
    lapic::enable();
    if machine.option("via") == Some("pic") {
        pic::initialise();
        lapic::set_virtual_wire(true);
        pic::unmask(1 << COM1_IRQ);
        interrupts::acknowledge(pic::PRIMARY_VECTOR + COM1_IRQ, EOI_PIC_PRIMARY);
        return pic::PRIMARY_VECTOR + COM1_IRQ;
    }
    let tables = machine.acpi.as_ref();
    interrupts::acknowledge(VECTOR, EOI_LAPIC);
    IoApic::first(tables).route_edge(pin_of_isa(tables, COM1_IRQ), VECTOR);
    VECTOR
}

/// Sends `bytes` received bytes back, asleep where there is none and woken by the received-data interrupt.
/// The peer may send all at once: what the FIFO cannot take has to wait outside.
fn echo(machine: &Machine) {
    let vector = route(machine);
    let total = machine.number("bytes", 4096);
    let mut echoed = 0;
    privileged::interrupts_on();
    port::write_u8(INTERRUPT_ENABLE, RECEIVED_ENABLED);
    print!("READY\n");
    let mut chunk = [0; FIFO_BYTES];
    let mut sleeps = 0u64;
    while echoed < total {
        let mut length = 0;
        while length < chunk.len() && data_is_ready() {
            chunk[length] = port::read_u8(DATA);
            length += 1;
        }
        if length == 0 {
            // With interrupts off between the look and the sleep, so that none comes in between.
            privileged::interrupts_off();
            if !data_is_ready() {
                privileged::halt();
                sleeps += 1;
            }
            privileged::interrupts_on();
        }
        Console.send(&chunk[..length]);
        echoed += length as u64;
    }
    port::write_u8(INTERRUPT_ENABLE, 0);
    privileged::interrupts_off();
    println!();
    println!("{} interrupts, {sleeps} sleeps", count(vector));
    assert!(count(vector) > 0, "no received-data interrupt");
}

fn data_is_ready() -> bool {
    port::read_u8(COM1 + LINE_STATUS) & DATA_READY != 0
}

/// Enabling the transmitter-empty interrupt raises it, and each emptied FIFO raises it again.
fn transmit_interrupt(machine: &Machine) {
    let vector = route(machine);
    privileged::interrupts_on();
    while port::read_u8(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
    for round in 0..8 {
        let before = count(vector);
        port::write_u8(INTERRUPT_ENABLE, TRANSMITTED_ENABLED);
        if round > 0 {
            port::write_string(DATA, b"0123456789\n");
        }
        let came = wait_until(2 * SECONDS, || count(vector) > before);
        let identity = port::read_u8(INTERRUPT_IDENTITY) & 0x0f;
        port::write_u8(INTERRUPT_ENABLE, 0);
        assert!(
            came,
            "no interrupt in round {round}, identity {identity:#x}"
        );
        assert_eq!(identity, 0x02, "identity in round {round}");
        assert_eq!(
            port::read_u8(INTERRUPT_IDENTITY) & 0x0f,
            0x01,
            "nothing pending"
        );
    }
    privileged::interrupts_off();
}
