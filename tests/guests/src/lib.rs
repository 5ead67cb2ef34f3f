//! The runtime of the freestanding guests.
//!
//! A guest is the whole software of a machine. It boots by PVH or by the 64-bit Linux boot protocol, sets
//! up descriptor tables at ring 0, and then drops to ring 3, in which all of its Rust code runs: with an I/O
//! permission map that allows all ports, and on a KVM that emulates ring 0 instruction by instruction
//! still at full speed. Interrupt handlers are a few assembly
//! instructions at ring 0 that count and acknowledge; ring 3 watches the counts. What is left to
//! privilege is behind one exception ([`privileged`]).
//!
//! Nothing protects a guest from itself: all memory below 4 GiB is mapped at its own address, writable
//! and executable from ring 3.
#![no_std]

pub mod acpi;
pub mod boot_info;
pub mod cmos;
pub mod console;
pub mod dma;
pub mod entry;
pub mod hotplug;
pub mod interrupts;
pub mod ioapic;
pub mod lapic;
mod memory_functions;
pub mod mmio;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod port;
pub mod privileged;
pub mod report;
pub mod smp;
pub mod stop;
pub mod time;
pub mod virtio;

/// Everything that a guest's tests get: what the boot loader told, and the ACPI tables' place.
#[derive(Debug)]
pub struct Machine {
    /// Memory map, command line, initial RAM disk.
    pub boot: boot_info::BootInfo,
    /// The ACPI tables, when there is a valid RSDP.
    pub acpi: Option<acpi::Tables>,
}

impl Machine {
    /// Reads what the boot loader left, and prepares the console and the power-off.
    pub fn new(protocol: boot_info::Protocol, address: u64) -> Self {
        console::initialise();
        let boot = boot_info::BootInfo::read(protocol, address);
        let acpi = acpi::Tables::find(boot.rsdp);
        if let Some(tables) = &acpi {
            stop::learn_power_off(tables);
        }
        Self { boot, acpi }
    }

    /// The value of `key=value` on the command line.
    pub fn option(&self, key: &str) -> Option<&str> {
        self.boot
            .command_line()
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The number in `key=number` on the command line, decimal or with `0x`; `default` without it.
    ///
    /// # Panics
    ///
    /// When the value is not a number: the run's description is wrong.
    pub fn number(&self, key: &str, default: u64) -> u64 {
        self.option(key).map_or(default, |value| {
            let parsed = match value.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => value.parse(),
            };
            parsed.unwrap_or_else(|_| panic!("{key}={value} is not a number"))
        })
    }

    /// The ACPI tables.
    ///
    /// # Panics
    ///
    /// When the machine has none.
    pub fn acpi(&self) -> &acpi::Tables {
        self.acpi.as_ref().expect("a valid RSDP")
    }
}
