//! The guest with all tests; the command line chooses: `test=name,name end=way key=value…`.
//!
//! `end` is a way of [`Way`], `ask` to be told on the console, or left out for a power-off.
#![no_std]
#![no_main]

mod acpi;
mod blk_bench;
mod boot;
mod exits;
mod hostile;
mod hotplug;
mod interrupts;
mod pci;
mod ring_0;
mod rtc;
mod serial;
mod smp;
mod virtio_blk;
mod virtio_net;
mod virtio_rng;
mod virtio_vsock;
mod write_log;

use runtime::Machine;
use runtime::boot_info::Protocol;
use runtime::report::{self, Test};
use runtime::stop::Way;

const TESTS: &[&[(&str, Test)]] = &[
    acpi::TESTS,
    blk_bench::TESTS,
    boot::TESTS,
    exits::TESTS,
    hostile::TESTS,
    hotplug::TESTS,
    interrupts::TESTS,
    pci::TESTS,
    ring_0::TESTS,
    rtc::TESTS,
    serial::TESTS,
    smp::TESTS,
    virtio_blk::TESTS,
    virtio_net::TESTS,
    virtio_rng::TESTS,
    virtio_vsock::TESTS,
    write_log::TESTS,
];

/// Entered at ring 3, on the boot processor, by the runtime's assembly.
#[unsafe(no_mangle)]
extern "C" fn start(protocol: u64, address: u64) -> ! {
    runtime::interrupts::initialise();
    let protocol = if protocol == 0 {
        Protocol::Pvh
    } else {
        Protocol::Linux64
    };
    let machine = Machine::new(protocol, address);
    report::run(&machine, TESTS);
    let way = match machine.option("end") {
        None => Way::PowerOff,
        Some("ask") => Way::asked(),
        Some(name) => Way::named(name).unwrap_or_else(|| panic!("unknown end {name}")),
    };
    way.take(machine.acpi.as_ref())
}
