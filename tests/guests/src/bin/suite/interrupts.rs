//! The interrupt controllers and the timers behind them.

use runtime::interrupts::{self, EOI_LAPIC, EOI_PIC_PRIMARY, EOI_PIC_SECONDARY, count};
use runtime::ioapic::{self, IoApic, pin_of_isa};
use runtime::report::Test;
use runtime::time::{MILLISECONDS, SECONDS, spin, wait_until};
use runtime::{Machine, cmos, lapic, pic, pit, port, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("pic", pic_timer),
    ("pic-registers", pic_registers),
    ("pic-secondary", pic_secondary),
    ("pit", pit_channels),
    ("pit-one-shot", pit_one_shot),
    ("ioapic", ioapic_timer),
    ("ioapic-registers", ioapic_registers),
    ("ioapic-level", ioapic_level),
    ("lapic", local_apic),
];

const TIMER_VECTOR: u8 = 0x41;
const SERIAL_VECTOR: u8 = 0x51;
/// 1 kHz.
const TIMER_COUNT: u16 = (pit::HERTZ / 1000) as u16;

/// Masks, request and in-service registers, and the edge/level control can be read back.
fn pic_registers(_: &Machine) {
    pic::initialise();
    assert_eq!(pic::masks(), 0xffff);
    pic::unmask(0x5555);
    assert_eq!(pic::masks(), 0xaaaa & !0x0004);
    pic::unmask(0);
    assert_eq!(pic::in_service(), 0, "in service");
    // The timer's line rises while masked: requested, not served.
    pit::start(0, 2, TIMER_COUNT);
    assert!(
        wait_until(SECONDS, || pic::requests() & 1 != 0),
        "no request"
    );
    assert_eq!(pic::in_service(), 0, "in service though masked");
    port::write_u8(0x4d1, 0x02);
    assert_eq!(port::read_u8(0x4d1), 0x02, "edge/level control, secondary");
    port::write_u8(0x4d1, 0);
    // Lines 0, 1 and 2 are edge-triggered for good.
    port::write_u8(0x4d0, 0xff);
    assert_eq!(port::read_u8(0x4d0), 0xf8, "edge/level control, primary");
    port::write_u8(0x4d0, 0);
}

/// The timer interrupts through the primary 8259 and LINT0, and stops when masked or not acknowledged.
fn pic_timer(_: &Machine) {
    lapic::enable();
    lapic::set_virtual_wire(true);
    pic::initialise();
    let vector = pic::PRIMARY_VECTOR;
    interrupts::acknowledge(vector, EOI_PIC_PRIMARY);
    privileged::interrupts_on();
    pit::start(0, 2, TIMER_COUNT);
    spin(10 * MILLISECONDS);
    assert_eq!(count(vector), 0, "interrupts though masked");
    pic::unmask(1);
    assert!(
        wait_until(5 * SECONDS, || count(vector) >= 20),
        "{} timer interrupts through the 8259",
        count(vector)
    );
    pic::unmask(0);
    spin(10 * MILLISECONDS);
    let masked_at = count(vector);
    spin(20 * MILLISECONDS);
    assert_eq!(count(vector), masked_at, "interrupts after masking");

    // Without an end of interrupt there is exactly one, and it stays in service.
    interrupts::acknowledge(vector, 0);
    pic::unmask(1);
    assert!(
        wait_until(5 * SECONDS, || count(vector) > masked_at),
        "no interrupt after unmasking"
    );
    spin(20 * MILLISECONDS);
    assert_eq!(
        count(vector),
        masked_at + 1,
        "interrupts without an end of interrupt"
    );
    assert_eq!(pic::in_service(), 1, "in service");
    interrupts::acknowledge(vector, EOI_PIC_PRIMARY);
    pic::end_of_interrupt();
    assert!(
        wait_until(5 * SECONDS, || count(vector) > masked_at + 1),
        "no interrupt after the end of interrupt"
    );

    // With the interrupt flag off nothing comes, and what was held back comes once it is on.
    privileged::interrupts_off();
    let off_at = count(vector);
    spin(20 * MILLISECONDS);
    assert_eq!(count(vector), off_at, "interrupts while they are off");
    privileged::interrupts_on();
    assert!(
        wait_until(5 * SECONDS, || count(vector) > off_at),
        "none after the flag was set"
    );

    // Asleep as well.
    privileged::interrupts_off();
    for _ in 0..5 {
        let before = count(vector);
        privileged::halt();
        assert!(count(vector) > before, "woken without an interrupt");
    }
    pic::unmask(0);
    lapic::set_virtual_wire(false);
}

/// The real-time clock's periodic interrupt comes through the secondary 8259.
fn pic_secondary(_: &Machine) {
    lapic::enable();
    lapic::set_virtual_wire(true);
    pic::initialise();
    let vector = pic::SECONDARY_VECTOR;
    interrupts::acknowledge(vector, EOI_PIC_PRIMARY | EOI_PIC_SECONDARY);
    privileged::interrupts_on();
    cmos::read(cmos::STATUS_C);
    pic::unmask(1 << 8);
    cmos::write(cmos::STATUS_A, 0x26);
    cmos::write(cmos::STATUS_B, cmos::read(cmos::STATUS_B) | 0x40);
    for tick in 0..5 {
        assert!(
            wait_until(5 * SECONDS, || count(vector) > tick),
            "{} interrupts through the secondary 8259",
            count(vector)
        );
        assert_ne!(cmos::read(cmos::STATUS_C) & 0x40, 0, "periodic flag");
    }
    cmos::write(cmos::STATUS_B, cmos::read(cmos::STATUS_B) & !0x40);
    pic::unmask(0);
    lapic::set_virtual_wire(false);
    privileged::interrupts_off();
}

/// Counting, latching, read-back, and channel 2 by its gate.
fn pit_channels(_: &Machine) {
    pit::start(0, 2, 0);
    let mut smaller = 0;
    for _ in 0..20 {
        let first = pit::count(0);
        spin(MILLISECONDS / 2);
        if pit::count(0) < first {
            smaller += 1;
        }
    }
    assert!(smaller >= 10, "channel 0 does not count down");
    pit::start(0, 2, 1000);
    spin(MILLISECONDS);
    for _ in 0..20 {
        assert!(
            (1..=1000).contains(&pit::count(0)),
            "count beyond its reload value"
        );
    }
    assert_eq!(
        pit::status(0) & 0x3f,
        0x34,
        "status of channel 0: both bytes, mode 2, binary"
    );

    // Mode 0 on channel 2: the output falls with the count written and rises at its end.
    pit::set_gate_2(true);
    pit::start(2, 0, 0x4000);
    assert!(!pit::output_2(), "output before the end");
    assert!(
        wait_until(2 * SECONDS, pit::output_2),
        "the output does not rise"
    );
    pit::set_gate_2(false);
}

/// Mode 0 interrupts once for each count written.
fn pit_one_shot(machine: &Machine) {
    let tables = machine.acpi.as_ref();
    lapic::enable();
    interrupts::acknowledge(TIMER_VECTOR, EOI_LAPIC);
    // The output of mode 0 is low after the mode was written: no edge until the end of the count.
    pit::start(0, 0, 0xffff);
    let (io_apic, pin) = (IoApic::first(tables), pin_of_isa(tables, 0));
    io_apic.route_edge(pin, TIMER_VECTOR);
    privileged::interrupts_on();
    let first = count(TIMER_VECTOR);
    for shot in 1..=5 {
        pit::start(0, 0, 2000);
        assert!(
            wait_until(5 * SECONDS, || count(TIMER_VECTOR) >= first + shot),
            "{} interrupts of {shot}",
            count(TIMER_VECTOR) - first
        );
        spin(5 * MILLISECONDS);
        assert_eq!(
            count(TIMER_VECTOR),
            first + shot,
            "more interrupts than counts"
        );
    }
    privileged::interrupts_off();
    io_apic.mask(pin);
}

/// Identifier, version and redirection entries; read-only bits stay.
fn ioapic_registers(machine: &Machine) {
    let io_apic = IoApic::first(machine.acpi.as_ref());
    let version = io_apic.read(1);
    assert!(
        matches!(version & 0xff, 0x11 | 0x20),
        "version {version:#x}"
    );
    assert_eq!(io_apic.pins(), 24, "pins");
    for pin in 0..io_apic.pins() {
        assert_ne!(
            io_apic.entry(pin) & ioapic::MASKED,
            0,
            "pin {pin} is open at the start"
        );
    }
    let entry = 0x5a << 56 | ioapic::MASKED | ioapic::LEVEL | ioapic::ACTIVE_LOW | 0x77;
    io_apic.set_entry(20, entry | ioapic::REMOTE_IRR | 1 << 12);
    assert_eq!(
        io_apic.entry(20),
        entry,
        "remote IRR and delivery status are read-only"
    );
    io_apic.set_entry(20, ioapic::MASKED);
    // Registers that are not there.
    assert!(
        matches!(io_apic.read(0xfe), 0 | u32::MAX),
        "a register that is not there"
    );
    io_apic.write(0xfe, 0x1234);
}

/// The timer interrupts through pin 2, and stops when masked.
fn ioapic_timer(machine: &Machine) {
    let tables = machine.acpi.as_ref();
    lapic::enable();
    interrupts::acknowledge(TIMER_VECTOR, EOI_LAPIC);
    let (io_apic, pin) = (IoApic::first(tables), pin_of_isa(tables, 0));
    pit::start(0, 2, TIMER_COUNT);
    privileged::interrupts_on();
    io_apic.route_edge(pin, TIMER_VECTOR);
    assert!(
        wait_until(5 * SECONDS, || count(TIMER_VECTOR) >= 20),
        "{} timer interrupts through the I/O APIC",
        count(TIMER_VECTOR)
    );
    io_apic.mask(pin);
    spin(10 * MILLISECONDS);
    let masked_at = count(TIMER_VECTOR);
    spin(20 * MILLISECONDS);
    assert_eq!(count(TIMER_VECTOR), masked_at, "interrupts after masking");

    // Another vector from now on.
    let other = TIMER_VECTOR + 1;
    interrupts::acknowledge(other, EOI_LAPIC);
    io_apic.route_edge(pin, other);
    assert!(
        wait_until(5 * SECONDS, || count(other) >= 3),
        "none at the new vector"
    );
    assert_eq!(
        count(TIMER_VECTOR),
        masked_at,
        "interrupts at the old vector"
    );
    io_apic.mask(pin);

    // A destination that no processor has: nothing arrives.
    spin(10 * MILLISECONDS);
    let before = count(other);
    io_apic.set_entry(pin, 0x7f << 56 | u64::from(other));
    spin(20 * MILLISECONDS);
    assert_eq!(count(other), before, "interrupts for another processor");
    io_apic.mask(pin);
    privileged::interrupts_off();
}

/// Whether the local APIC keeps an interrupt in service until its end. A KVM that runs ring 3 natively
/// was seen to end each one when it delivers it.
fn keeps_in_service() -> bool {
    const VECTOR: u8 = 0x62;
    const IN_SERVICE: usize = 0x100 + (VECTOR as usize / 32) * 0x10;
    let before = count(VECTOR);
    interrupts::acknowledge(VECTOR, 0);
    privileged::interrupts_on();
    lapic::send(lapic::identifier(), 0x4000 | u32::from(VECTOR));
    assert!(
        wait_until(SECONDS, || count(VECTOR) > before),
        "no interrupt to self"
    );
    let kept = lapic::read(IN_SERVICE) & 1 << (VECTOR % 32) != 0;
    lapic::end_of_interrupt();
    privileged::interrupts_off();
    assert_eq!(
        lapic::read(IN_SERVICE) & 1 << (VECTOR % 32),
        0,
        "in service after its end"
    );
    kept
}

/// A level-triggered pin interrupts again after each end of interrupt for as long as its wire is up, and
/// remote IRR tells that one is being served. The wire is the serial port's transmitter-empty interrupt.
fn ioapic_level(machine: &Machine) {
    const INTERRUPT_ENABLE: u16 = 0x3f9;
    const TRANSMITTED_ENABLED: u8 = 2;
    let tables = machine.acpi.as_ref();
    lapic::enable();
    let kept = keeps_in_service();
    println!("the local APIC keeps interrupts in service: {kept}");
    let (io_apic, pin) = (IoApic::first(tables), pin_of_isa(tables, 4));
    interrupts::acknowledge(SERIAL_VECTOR, 0);
    let destination = u64::from(lapic::identifier()) << 56;
    io_apic.set_entry(pin, destination | ioapic::LEVEL | u64::from(SERIAL_VECTOR));
    let first = count(SERIAL_VECTOR);
    port::write_u8(INTERRUPT_ENABLE, TRANSMITTED_ENABLED);
    for round in 1..6 {
        // Asleep with interrupts on, awake with interrupts off: one at a time, in service or not.
        privileged::halt();
        assert!(
            count(SERIAL_VECTOR) >= first + round,
            "woken by something else"
        );
        if kept {
            privileged::interrupts_on();
            spin(5 * MILLISECONDS);
            privileged::interrupts_off();
            assert_eq!(
                count(SERIAL_VECTOR),
                first + round,
                "interrupts before the end"
            );
            assert_ne!(io_apic.entry(pin) & ioapic::REMOTE_IRR, 0, "remote IRR");
        }
        if round == 5 {
            // Reading the identity register takes the wire down.
            assert_eq!(port::read_u8(0x3fa) & 0x0f, 0x02, "identity");
        }
        lapic::end_of_interrupt();
    }
    // One that was sent before the wire went down may still be on its way.
    privileged::interrupts_on();
    spin(10 * MILLISECONDS);
    let last = count(SERIAL_VECTOR);
    lapic::end_of_interrupt();
    assert!(
        last <= first + if kept { 5 } else { 7 },
        "{} interrupts",
        last - first
    );
    spin(20 * MILLISECONDS);
    assert_eq!(count(SERIAL_VECTOR), last, "interrupts with the wire down");
    assert_eq!(
        io_apic.entry(pin) & ioapic::REMOTE_IRR,
        0,
        "remote IRR with the wire down"
    );
    port::write_u8(INTERRUPT_ENABLE, 0);
    privileged::interrupts_off();
    io_apic.mask(pin);
}

/// The local APIC's identity, and an interrupt that a processor sends to itself.
fn local_apic(_: &Machine) {
    const SELF_VECTOR: u8 = 0x61;
    lapic::enable();
    let version = lapic::version();
    println!("local APIC {} version {version:#x}", lapic::identifier());
    assert!(
        (0x10..=0x15).contains(&(version & 0xff)),
        "version {version:#x}"
    );
    assert!(version >> 16 & 0xff >= 4, "local vectors");
    interrupts::acknowledge(SELF_VECTOR, EOI_LAPIC);
    privileged::interrupts_on();
    lapic::send(lapic::identifier(), 0x4000 | u32::from(SELF_VECTOR));
    assert!(
        wait_until(SECONDS, || count(SELF_VECTOR) == 1),
        "no interrupt to self"
    );
    privileged::interrupts_off();
}
