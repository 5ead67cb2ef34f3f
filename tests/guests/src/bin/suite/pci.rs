//! PCI, and what virtio devices do there alone.

use runtime::dma::DmaBuffer;
use runtime::interrupts::{self, count};
use runtime::ioapic::IoApic;
use runtime::mmio::Registers;
use runtime::pci::{Function, capability, command, register};
use runtime::report::Test;
use runtime::time::{MILLISECONDS, SECONDS, spin, wait_until};
use runtime::virtio::entropy::EntropyDevice;
use runtime::virtio::{Buffer, Device, Layout, device_id, pci};
use runtime::{Machine, lapic, port, println, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("pci-scan", scan),
    ("pci-ecam", ecam),
    ("pci-acpi", acpi),
    ("pci-bars", bars),
    ("pci-move", relocate),
    ("pci-intx", pin),
    ("pci-msix-mask", masked_vector),
    ("pci-flr", function_level_reset),
    ("pci-queue-reset", queue_reset),
    ("pci-bus-master", bus_master),
    ("pci-power", power_states),
    ("pci-window", window),
    ("pci-none", none),
];

/// Where nothing is, in the window below 4 GiB.
const ELSEWHERE: u32 = 0xd123_0000;

fn entropy_device(machine: &Machine) -> Device {
    Device::first(machine, device_id::ENTROPY)
}

fn exercise(device: Device) {
    let mut entropy = EntropyDevice::start(device, 0);
    entropy.fill(Layout::Chain, DmaBuffer::allocate(64, 1));
}

/// Bus 0 has a host bridge and `pci.devices` others, each with its capabilities.
fn scan(machine: &Machine) {
    let mut devices = 0;
    for function in Function::all() {
        let (id, class) = (function.read_u32(register::ID), function.read_u32(8));
        println!("{:02x}: {id:08x} class {:06x}", function.device, class >> 8);
        assert_eq!(function.read_u8(0x0e), 0, "header type");
        if function.device == 0 {
            assert_eq!(class >> 16, 0x0600, "host bridge");
            continue;
        }
        devices += 1;
        assert_eq!(id & 0xffff, 0x1af4, "vendor");
        assert_eq!(class & 0xff, 1, "revision");
        for id in [capability::EXPRESS, capability::MSIX, capability::POWER] {
            assert_eq!(function.capabilities(id).count(), 1, "capability {id:#x}");
        }
        assert_eq!(function.capabilities(capability::VENDOR).count(), 5);
        assert_eq!(function.read_u8(register::INTERRUPT + 1), 1, "INTA#");
    }
    assert_eq!(devices, machine.number("pci.devices", 1), "devices");
}

/// The configuration spaces in memory are those behind the ports.
fn ecam(machine: &Machine) {
    let (address, last_bus) = machine.acpi().configuration_spaces().expect("MCFG");
    assert_eq!(last_bus, 0, "last bus");
    for device in 0..32 {
        let function = Function { bus: 0, device };
        // SAFETY: the MCFG says that configuration spaces are there.
        let space = unsafe { Registers::at(address as usize + usize::from(device) * 0x8000) };
        for offset in (0..=0xfc).step_by(4) {
            let by_port = function.read_u32(offset);
            assert_eq!(space.read_u32(usize::from(offset)), by_port, "{offset:#x}");
        }
        let there = space.read_u16(0) != 0xffff;
        let extended = if there { 0 } else { u32::MAX };
        assert_eq!(space.read_u32(0x100), extended, "extended capabilities");
        if there {
            space.write_u8(0x3c, 0x5a);
            assert_eq!(function.read_u8(register::INTERRUPT), 0x5a);
        }
    }
}

/// The tables tell of the root complex.
fn acpi(machine: &Machine) {
    let dsdt = machine.acpi().dsdt().expect("DSDT");
    // _HID EISAID("PNP0A08"), EISAID("PNP0C02").
    for id in [&[0x41, 0xd0, 0x0a, 0x08], &[0x41, 0xd0, 0x0c, 0x02]] {
        assert_eq!(dsdt.occurrences(id).count(), 1, "{id:x?}");
    }
    for name in [&b"_CRS"[..], b"_OSC", b"_PRT", b"_SEG", b"_BBN"] {
        assert!(dsdt.occurrences(name).next().is_some(), "{name:?}");
    }
    assert_eq!(dsdt.occurrences(b"LNRO0005").count(), 0);
}

/// A base address register tells its size, and registers are decoded only when the guest says so.
fn bars(machine: &Machine) {
    let device = entropy_device(machine);
    let function = device.function().function;
    let address = function.bar(0);
    assert_eq!(device.status(), 0);
    function.write_u16(register::COMMAND, command::BUS_MASTER);
    assert_eq!(device.status(), 0xff, "registers are decoded");
    function.write_u32(register::BAR_0, u32::MAX);
    function.write_u32(register::BAR_0 + 4, u32::MAX);
    let low = function.read_u32(register::BAR_0);
    let high = function.read_u32(register::BAR_0 + 4);
    assert_eq!((low & 0xf, high), (4, u32::MAX), "64 bits of memory");
    let size = (!(low & !0xf)).wrapping_add(1);
    assert_eq!(size, 0x8000, "size");
    assert!(address.is_multiple_of(u64::from(size)), "{address:#x}");
    for index in 2..6 {
        function.write_u32(register::BAR_0 + index * 4, u32::MAX);
        assert_eq!(function.read_u32(register::BAR_0 + index * 4), 0);
    }
    function.write_u32(register::BAR_0, address as u32);
    function.write_u32(register::BAR_0 + 4, (address >> 32) as u32);
    function.enable();
    exercise(device);
}

/// A started device goes on where its registers are moved to, doorbells included.
fn relocate(machine: &Machine) {
    let device = entropy_device(machine);
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    entropy.fill(Layout::Chain, data);
    let function = device.function().function;
    let home = function.bar(0) as u32;
    for address in [ELSEWHERE, home, 0x1000, 0xfec0_0000, u32::MAX, ELSEWHERE] {
        function.write_u32(register::BAR_0, address & !0x7fff);
        assert_eq!(device.status() == 0xff, address != home, "{address:#x}");
    }
    let moved = entropy_device(machine);
    assert_eq!(moved.status(), 0xf, "status after the move");
    entropy.device = moved;
    for _ in 0..3 {
        entropy.fill(Layout::Chain, data);
    }
    // Onto another function's registers: whoever was there stays.
    if let Some(other) = Function::all().find(|other| other.device > 0 && *other != function) {
        other.enable();
        function.write_u32(register::BAR_0, other.bar(0) as u32);
        assert_eq!(moved.status(), 0xff, "still at the old address");
    }
    function.write_u32(register::BAR_0, home);
    entropy.device = device;
    entropy.fill(Layout::Chain, data);
}

/// Without MSI-X there is a level-triggered interrupt, held until its cause is taken.
fn pin(machine: &Machine) {
    let device = entropy_device(machine);
    let function = device.function().function;
    let gsi = u32::from(function.read_u8(register::INTERRUPT));
    assert_eq!(gsi, 16 + u32::from(function.device % 4), "interrupt line");
    lapic::enable();
    interrupts::acknowledge(device.vector, interrupts::EOI_LAPIC);
    let io_apic = IoApic::first(machine.acpi.as_ref());
    io_apic.route_level(gsi, device.vector);
    let before = count(device.vector);
    let interrupts = || count(device.vector) - before;
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    for round in 1..=5 {
        entropy.fill(Layout::Chain, data);
        assert!(
            wait_until(5 * SECONDS, || lapic::is_requested(device.vector)),
            "no interrupt"
        );
        assert_ne!(function.read_u16(6) & 1 << 3, 0, "interrupt status");
        assert_eq!(device.take_interrupt_status(), 1, "ISR status");
        assert_eq!(device.take_interrupt_status(), 0, "ISR status is cleared");
        assert_eq!(function.read_u16(6) & 1 << 3, 0, "interrupt status");
        privileged::interrupts_on();
        assert!(wait_until(5 * SECONDS, || interrupts() >= round));
        spin(MILLISECONDS);
        privileged::interrupts_off();
        assert_eq!(interrupts(), round, "interrupts");
    }
    // A disabled pin is silent.
    function.write_u16(
        register::COMMAND,
        1 << 10 | command::MEMORY | command::BUS_MASTER,
    );
    entropy.fill(Layout::Chain, data);
    spin(MILLISECONDS);
    assert!(!lapic::is_requested(device.vector), "a disabled pin");
    function.enable();
    assert!(wait_until(SECONDS, || lapic::is_requested(device.vector)));
    device.reset();
    privileged::interrupts_on();
    assert!(wait_until(SECONDS, || interrupts() == 6), "the last one");
    privileged::interrupts_off();
    io_apic.mask(gsi);
}

/// A masked vector waits as a pending bit.
fn masked_vector(machine: &Machine) {
    let device = entropy_device(machine);
    lapic::enable();
    device.route_interrupt(machine);
    let function = device.function().function;
    let msix = function
        .capabilities(capability::MSIX)
        .next()
        .expect("MSI-X");
    let table = function.registers(0).base() + (function.read_u32(msix + 4) & !7) as usize;
    let pending = function.registers(0).base() + (function.read_u32(msix + 8) & !7) as usize;
    // SAFETY: the function's registers.
    let (table, pending) = unsafe { (Registers::at(table), Registers::at(pending)) };
    let before = count(device.vector);
    let interrupts = || count(device.vector) - before;
    privileged::interrupts_on();
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    let one_more = |fill: &mut dyn FnMut(), unmask: &dyn Fn(), round| {
        fill();
        assert!(
            wait_until(5 * SECONDS, || pending.read_u32(0) == 1),
            "pending"
        );
        assert_eq!(interrupts(), round - 1, "masked");
        unmask();
        assert!(wait_until(5 * SECONDS, || interrupts() == round));
        assert_eq!(pending.read_u32(0), 0, "pending");
    };
    table.write_u32(12, 1);
    one_more(
        &mut || {
            entropy.fill(Layout::Chain, data);
        },
        &|| table.write_u32(12, 0),
        1,
    );
    function.write_u16(msix + 2, 3 << 14);
    one_more(
        &mut || {
            entropy.fill(Layout::Chain, data);
        },
        &|| function.write_u16(msix + 2, 2 << 14),
        2,
    );
    // A vector that is not there is none.
    let common = device.function().common;
    common.write_u16(pci::register::QUEUE_VECTOR, 100);
    assert_eq!(common.read_u16(pci::register::QUEUE_VECTOR), pci::NO_VECTOR);
    entropy.fill(Layout::Chain, data);
    spin(MILLISECONDS);
    assert_eq!(interrupts(), 2, "interrupts without a vector");
    privileged::interrupts_off();
}

/// A function-level reset leaves the function as the machine's start did, but for its address.
fn function_level_reset(machine: &Machine) {
    let device = entropy_device(machine);
    let function = device.function().function;
    let express = function
        .capabilities(capability::EXPRESS)
        .next()
        .expect("PCI Express");
    assert_ne!(
        function.read_u32(express + 4) & 1 << 28,
        0,
        "FLR capability"
    );
    let address = function.read_u32(register::BAR_0);
    for _ in 0..3 {
        exercise(device);
        function.write_u16(express + 8, 1 << 15);
        assert_eq!(function.read_u16(register::COMMAND), 0, "command");
        function.write_u32(register::BAR_0, address);
        function.enable();
        assert_eq!(device.status(), 0, "status");
    }
    exercise(device);
}

/// A queue is reset by itself and used again.
fn queue_reset(machine: &Machine) {
    const RING_RESET: u64 = 1 << 40;
    let device = entropy_device(machine);
    let common = device.function().common;
    for _ in 0..3 {
        let mut entropy = EntropyDevice::start(device, RING_RESET);
        let data = DmaBuffer::allocate(64, 1);
        entropy.fill(Layout::Chain, data);
        common.write_u16(pci::register::QUEUE_RESET, 1);
        assert!(wait_until(SECONDS, || common
            .read_u16(pci::register::QUEUE_RESET)
            == 0));
        assert!(!device.queue_is_on(), "the queue is on after its reset");
        device.notify(0);
        entropy.queue = runtime::virtio::Queue::new(0, 8, false);
        device.set_up_queue(&entropy.queue);
        entropy.fill(Layout::Chain, data);
        assert_eq!(device.status(), 0xf, "status");
    }
}

/// A device that may not access memory leaves it alone, and goes on when it may again.
fn bus_master(machine: &Machine) {
    let device = entropy_device(machine);
    let function = device.function().function;
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    for _ in 0..3 {
        entropy.fill(Layout::Chain, data);
        function.write_u16(register::COMMAND, command::MEMORY);
        let used = entropy.queue.used_index();
        data.fill(0x77);
        entropy
            .queue
            .set_request(0, Layout::Chain, &[Buffer::FromDevice(data)]);
        entropy.queue.publish(0);
        device.notify(0);
        spin(10 * MILLISECONDS);
        assert_eq!(entropy.queue.used_index(), used, "a completion");
        assert!((0..64).all(|offset| data.read_u8(offset) == 0x77), "data");
        function.enable();
        assert_eq!(entropy.queue.wait_used(device), (0, 64));
    }
    // What hands the machine over does no more than this; its successor begins with a reset.
    function.write_u16(register::COMMAND, command::MEMORY);
    device.reset();
    function.enable();
    exercise(device);
}

/// A device that sleeps has no registers and touches nothing, and goes on where it was when it wakes.
fn power_states(machine: &Machine) {
    let device = entropy_device(machine);
    let function = device.function().function;
    let power = function.capabilities(capability::POWER).next();
    let control = power.expect("power management") + 4;
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    for _ in 0..3 {
        entropy.fill(Layout::Chain, data);
        function.write_u16(control, 3);
        assert_eq!(function.read_u16(control) & 3, 3, "D3hot");
        assert_eq!(device.status(), 0xff, "registers are decoded");
        let used = entropy.queue.used_index();
        let buffers = [Buffer::FromDevice(data)];
        entropy.queue.set_request(0, Layout::Chain, &buffers);
        entropy.queue.publish(0);
        spin(MILLISECONDS);
        assert_eq!(entropy.queue.used_index(), used, "a completion");
        function.write_u16(control, 0);
        assert_eq!(device.status(), 0xf, "status");
        assert_eq!(entropy.queue.wait_used(device), (0, 64));
    }
    device.reset();
}

/// Registers can be reached through the configuration space alone.
fn window(machine: &Machine) {
    let device = entropy_device(machine);
    device.negotiate(0);
    let function = device.function().function;
    let window = function
        .capabilities(capability::VENDOR)
        .find(|offset| function.read_u8(offset + 3) == 5)
        .expect("the window");
    function.write_u8(window + 4, 0);
    function.write_u32(window + 8, pci::register::STATUS as u32);
    function.write_u32(window + 12, 1);
    assert_eq!(function.read_u8(window + 16), 0xb, "status");
    function.write_u8(window + 16, 0);
    assert_eq!(device.status(), 0, "status");
}

/// In a machine without PCI nobody answers, and its ports and addresses are nobody's.
fn none(machine: &Machine) {
    assert_eq!(Function::all().count(), 0, "functions");
    assert_eq!(machine.acpi().configuration_spaces(), None);
    port::write_u32(0xcf8, 1 << 31);
    assert_eq!(port::read_u32(0xcf8), u32::MAX);
    // SAFETY: nothing is there, and no memory.
    let space = unsafe { Registers::at(0xe000_0000) };
    assert_eq!(space.read_u32(0), u32::MAX);
}
