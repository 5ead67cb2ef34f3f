//! Hot-plug: a disk that comes and goes. The host attaches and detaches when a line asks for it.

use runtime::dma::DmaBuffer;
use runtime::hotplug::{RootPort, Signal, control, status};
use runtime::pci::{Function, capability, register};
use runtime::report::Test;
use runtime::stop::Way;
use runtime::time::{MILLISECONDS, SECONDS, spin, wait_until};
use runtime::virtio::block::{BlockDevice, SECTOR_BYTES, kind, set_header};
use runtime::virtio::pci::PciRegisters;
use runtime::virtio::{Buffer, Device, Layout, Transport, device_id};
use runtime::{Machine, println};

pub const TESTS: &[(&str, Test)] = &[
    ("hotplug-ports", ports),
    ("hotplug", rounds),
    ("hotplug-load", rounds_under_load),
    ("hotplug-refuse", refuse),
    ("hotplug-start", there_from_the_start),
];

/// Of the port.
const PORT_VECTOR: u8 = 0xa0;
/// Of the disk.
const DISK_VECTOR: u8 = 0xa1;
/// Requests in flight, of three descriptors each.
const IN_FLIGHT: usize = 20;

/// Each port has a bus, a window and a slot of its own, and nothing behind it.
fn ports(machine: &Machine) {
    let (_, last_bus) = machine.acpi().configuration_spaces().expect("MCFG");
    let mut slots = 0;
    for (bus, function) in (1_u8..).zip(RootPort::all()) {
        slots += 1;
        assert_eq!(function.read_u8(0x0e), 1, "header type");
        assert_eq!(
            function.read_u32(0x18),
            u32::from(bus) << 8 | u32::from(bus) << 16
        );
        let port = RootPort::open(machine, function, Signal::Message, PORT_VECTOR);
        assert_eq!(port.slot_number(), u32::from(bus), "slot number");
        assert!(!port.is_occupied() && !port.link_is_up());
        assert!(!port.behind().is_there());
        let window = function.read_u32(0x20);
        let (base, limit) = (window & 0xffff, window >> 16);
        assert!(base >= 0xc000 && base + 0x10 == limit, "{window:#x}");
        // The guest may give the bus another number.
        function.write_u16(0x19, 0x0505);
        assert_eq!(port.behind().bus, 5);
        assert!(!port.behind().is_there());
        function.write_u16(0x19, u16::from(bus) * 0x101);
    }
    assert_eq!(slots, machine.number("hotplug.slots", 0), "slots");
    assert_eq!(u64::from(last_bus), slots, "last bus");
}

fn first_port(machine: &Machine) -> RootPort {
    let function = RootPort::all().next().expect("a root port");
    let signal = match machine.option("hotplug.signal") {
        Some("pin") => Signal::Pin,
        _ => Signal::Message,
    };
    RootPort::open(machine, function, signal, PORT_VECTOR)
}

/// Waits for a device and gives it an address.
fn wait_device(port: &mut RootPort) -> Function {
    assert_eq!(port.wait_events(), status::PRESENCE | status::LINK);
    assert!(port.is_occupied() && port.link_is_up());
    port.set_indicator(control::BLINKS);
    let function = port.behind();
    assert_eq!(function.read_u32(register::ID), 0x1042_1af4, "a disk");
    let express = function.capabilities(capability::EXPRESS).next();
    let kind = function.read_u16(express.expect("PCI Express") + 2);
    assert_eq!(kind >> 4 & 0xf, 0, "an endpoint with a link");
    assert_eq!(function.bar(0), 0, "an address");
    function.write_u32(register::BAR_0, port.window());
    function.write_u32(register::BAR_0 + 4, 0);
    function.enable();
    // The pin is the port's alone, which shares its wire: requests are polled for.
    let silent = function.read_u16(register::COMMAND) | 1 << 10;
    function.write_u16(register::COMMAND, silent);
    port.set_indicator(control::ON);
    function
}

fn disk_of(function: Function) -> BlockDevice {
    let parts = PciRegisters::of(function);
    BlockDevice::start(
        Device {
            transport: Transport::Pci(parts),
            id: device_id::BLOCK,
            vector: DISK_VECTOR,
        },
        0,
    )
}

/// Reads what is in a sector, and writes the complement to it.
fn drive(disk: &mut BlockDevice, sector: u64) {
    let data = DmaBuffer::allocate(SECTOR_BYTES, 16);
    disk.read(Layout::Chain, sector, data);
    for word in 0..64_u64 {
        let expected = (sector << 16 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let offset = word as usize * 8;
        assert_eq!(data.read_u64(offset), expected, "sector {sector}");
        data.write(offset, &(!expected).to_le_bytes());
    }
    disk.write(Layout::Chain, sector, data);
    disk.flush();
}

/// Waits for the attention button, and gives the device up.
fn wait_removal(port: &mut RootPort) {
    assert_eq!(port.wait_events(), status::BUTTON, "events");
    port.set_indicator(control::BLINKS);
    give_up(port);
}

fn give_up(port: &mut RootPort) {
    let function = port.behind();
    port.set_indicator(control::OFF);
    assert_eq!(port.wait_events(), status::PRESENCE | status::LINK);
    assert!(!port.is_occupied() && !port.link_is_up());
    assert!(!function.is_there());
    // SAFETY: nothing is there, and no memory.
    let registers = unsafe { runtime::mmio::Registers::at(port.window() as usize) };
    assert_eq!(registers.read_u32(0), u32::MAX, "registers");
}

/// A disk comes, is driven, and goes, `hotplug.rounds` times.
fn rounds(machine: &Machine) {
    let mut port = first_port(machine);
    for round in 0..machine.number("hotplug.rounds", 10) {
        println!("hotplug: empty {round}");
        let function = wait_device(&mut port);
        let mut disk = disk_of(function);
        drive(&mut disk, round);
        disk.device.reset();
        println!("hotplug: driven {round}");
        wait_removal(&mut port);
    }
    println!("hotplug: empty");
}

/// The same, but the disk is taken away in the midst of requests, and nothing is written to memory then.
fn rounds_under_load(machine: &Machine) {
    let mut port = first_port(machine);
    let headers = DmaBuffer::allocate(IN_FLIGHT * 16, 16);
    let states = DmaBuffer::allocate(IN_FLIGHT, 1);
    let data = DmaBuffer::allocate(IN_FLIGHT * 4096, 4096);
    for round in 0..machine.number("hotplug.rounds", 10) {
        println!("hotplug: empty {round}");
        let function = wait_device(&mut port);
        let mut disk = disk_of(function);
        drive(&mut disk, round);
        for index in 0..IN_FLIGHT {
            let header = headers.slice(index * 16, 16);
            set_header(header, kind::IN, index as u64);
            let buffers = [
                Buffer::ToDevice(header),
                Buffer::FromDevice(data.slice(index * 4096, 4096)),
                Buffer::FromDevice(states.slice(index, 1)),
            ];
            let head = index as u16 * 3;
            disk.queue.set_request(head, Layout::Chain, &buffers);
            disk.queue.publish(head);
        }
        disk.queue.notify(disk.device);
        // The others are under way.
        let (first, _) = disk.queue.wait_used(disk.device);
        disk.queue.publish(first);
        disk.queue.notify(disk.device);
        println!("hotplug: driven {round}");
        let mut completed = 1_u32;
        let asked = wait_until(30 * SECONDS, || {
            while let Some((head, _)) = disk.queue.take_used() {
                completed += 1;
                disk.queue.publish(head);
                disk.queue.notify(disk.device);
            }
            port.status() & status::BUTTON != 0
        });
        assert!(asked, "nobody asks for the disk");
        port.wait_events();
        // Requests are under way.
        give_up(&mut port);
        let used = disk.queue.used_index();
        data.fill(0x77);
        spin(10 * MILLISECONDS);
        assert_eq!(disk.queue.used_index(), used, "completions");
        assert!(
            (0..data.len())
                .step_by(64)
                .all(|at| data.read_u8(at) == 0x77)
        );
        println!("{completed} requests");
    }
    println!("hotplug: empty");
}

/// The guest keeps the disk when it is asked for the first time, and gives it up the second time.
fn refuse(machine: &Machine) {
    let mut port = first_port(machine);
    println!("hotplug: empty 0");
    let function = wait_device(&mut port);
    let mut disk = disk_of(function);
    println!("hotplug: driven 0");
    assert_eq!(port.wait_events(), status::BUTTON);
    port.set_indicator(control::BLINKS);
    // The one who asked gives up while the indicator blinks, and says so.
    assert_eq!(port.wait_events(), status::BUTTON);
    port.set_indicator(control::ON);
    drive(&mut disk, 0);
    println!("hotplug: driven 1");
    assert_eq!(port.wait_events(), status::BUTTON);
    drive(&mut disk, 1);
    give_up(&mut port);
    println!("hotplug: empty");
}

/// A disk that was attached before a restart is there, with an address, and can be detached.
fn there_from_the_start(machine: &Machine) {
    let mut port = first_port(machine);
    if !port.is_occupied() {
        println!("hotplug: empty 0");
        wait_device(&mut port);
        Way::PortCf9.take(machine.acpi.as_ref());
    }
    assert!(port.link_is_up());
    let function = port.behind();
    let address = function.bar(0);
    assert_eq!(
        address,
        u64::from(port.window()),
        "an address from the start"
    );
    function.enable();
    let mut disk = disk_of(function);
    drive(&mut disk, 0);
    println!("hotplug: driven 0");
    wait_removal(&mut port);
    println!("hotplug: empty");
}
