//! The type 1 header, which bridges have (PCI Express Base Specification 5.0, 7.5.1.3), and what it says
//! of the accesses that a bridge forwards.
//!
//! There is one window, for memory below 4 GiB. A bridge without I/O and prefetchable windows says so by
//! their registers, which are zero and stay so (PCI-to-PCI Bridge Architecture Specification 1.2, 3.2.5.6
//! and 3.2.5.9).

use std::ops::Range;

use crate::configuration::ConfigurationSpace;
use crate::header::{Identity, command};

/// Offsets of the registers that a type 0 header does not have.
pub(crate) mod register {
    /// Bus on which the bridge is, one byte; for software alone.
    pub const PRIMARY_BUS: u8 = 0x18;
    /// Bus behind the bridge, one byte; the next byte is the last bus behind it.
    pub const SECONDARY_BUS: u8 = 0x19;
    /// First megabyte of the memory window: two bytes, of which the upper 12 bits are those of the address.
    pub const MEMORY_BASE: u8 = 0x20;
    /// Last megabyte of the memory window, in the same way.
    pub const MEMORY_LIMIT: u8 = 0x22;
    /// Bridge control, two bytes.
    pub const BRIDGE_CONTROL: u8 = 0x3e;
}

/// Header type (7.5.1.1.9).
const TYPE_1: u8 = 1;
/// Bits of the address that a window's register has.
const WINDOW_ADDRESS: u16 = 0xfff0;
/// A window is a multiple of this.
pub(crate) const WINDOW_GRANULARITY_BYTES: u64 = 1 << 20;
/// In bridge control: everything behind the bridge is reset (7.5.1.3.13).
const SECONDARY_BUS_RESET: u16 = 1 << 6;
/// What else a guest may set in bridge control: two kinds of errors, of which there are none.
const BRIDGE_CONTROL_WRITABLE: u16 = 0b11 | SECONDARY_BUS_RESET;

/// What a bridge forwards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Forwarding {
    /// The bus behind it; 0 when that has not been said.
    pub secondary_bus: u8,
    /// Memory accesses to these addresses; empty for none.
    pub memory: Range<u64>,
    /// Requests of the functions behind it, their messages among them.
    pub requests: bool,
    /// Whatever is behind it is held in reset.
    pub in_reset: bool,
}

/// The configuration space of a bridge whose guest has set nothing up. Its window is closed.
pub(crate) fn configuration(identity: Identity) -> ConfigurationSpace {
    let mut space = ConfigurationSpace::without_subsystem(identity, TYPE_1);
    space.put(register::MEMORY_BASE, &WINDOW_ADDRESS.to_le_bytes());
    let buses = [0xff; 3];
    let window = WINDOW_ADDRESS.to_le_bytes();
    for (offset, mask) in [
        (register::PRIMARY_BUS, &buses[..]),
        (register::MEMORY_BASE, &window),
        (register::MEMORY_LIMIT, &window),
        (
            register::BRIDGE_CONTROL,
            &BRIDGE_CONTROL_WRITABLE.to_le_bytes(),
        ),
    ] {
        space.allow(usize::from(offset), mask);
    }
    space
}

/// What a bridge with this configuration space forwards now.
pub(crate) fn forwarding(space: &ConfigurationSpace) -> Forwarding {
    let address = |offset| (space.number::<2>(offset) & u64::from(WINDOW_ADDRESS)) << 16;
    let start = address(register::MEMORY_BASE);
    let end = address(register::MEMORY_LIMIT).saturating_add(WINDOW_GRANULARITY_BYTES);
    let memory = match space.has_command(command::MEMORY) && start < end {
        true => start..end,
        false => 0..0,
    };
    let control = space.number::<2>(register::BRIDGE_CONTROL);
    Forwarding {
        secondary_bus: u8::try_from(space.number::<1>(register::SECONDARY_BUS)).unwrap_or(0),
        memory,
        requests: space.has_command(command::BUS_MASTER),
        in_reset: control & u64::from(SECONDARY_BUS_RESET) != 0,
    }
}

/// The register of a window that begins, or ends, in the megabyte of `address`, below 4 GiB.
pub(crate) fn window_register(address: u64) -> [u8; 2] {
    let megabytes = u16::try_from(address >> 16).unwrap_or(0);
    (megabytes & WINDOW_ADDRESS).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bridge() -> ConfigurationSpace {
        configuration(Identity {
            vendor_id: 0x1b36,
            device_id: 0xc,
            revision_id: 0,
            class: [6, 4, 0],
            subsystem_vendor_id: 0,
            subsystem_id: 0,
        })
    }

    #[test]
    fn a_bridge_forwards_what_it_is_told() {
        let mut space = bridge();
        let nothing = Forwarding::default();
        assert_eq!(forwarding(&space), nothing);
        space.write(4, &[6, 0]);
        assert_eq!(forwarding(&space).memory, 0..0, "closed");
        space.write(0x18, &[0, 3, 5, 0xff]);
        let window = [window_register(0xc120_0000), window_register(0xc13f_ffff)];
        space.write(0x20, window.as_flattened());
        let all = Forwarding {
            secondary_bus: 3,
            memory: 0xc120_0000..0xc140_0000,
            requests: true,
            in_reset: false,
        };
        assert_eq!(forwarding(&space), all);
        space.write(0x3e, &[0x40]);
        assert!(forwarding(&space).in_reset);
        space.reset();
        assert_eq!(forwarding(&space), nothing);
    }

    #[test]
    fn windows_that_are_not_there_read_as_zeros() {
        let mut space = bridge();
        for offset in 0x10..0x40 {
            space.write(offset, &[0xff]);
        }
        assert_eq!(space.number::<8>(0x10), 0, "no base address registers");
        assert_eq!(space.number::<4>(0x18), 0x00ff_ffff);
        assert_eq!(space.number::<4>(0x1c), 0, "no I/O window");
        assert_eq!(space.number::<4>(0x20), 0xfff0_fff0);
        assert_eq!(space.number::<8>(0x24), 0, "no prefetchable window");
        assert_eq!(space.number::<8>(0x2c), 0);
        assert_eq!(space.number::<2>(0x3e), 0x43);
        assert_eq!(space.number::<1>(0x0e), 1);
    }

    proptest! {
        /// Whatever a guest writes, a window is whole megabytes below 4 GiB, and only while memory is decoded.
        #[test]
        fn windows_are_below_4_gib(writes in prop::collection::vec((0_u16..64, any::<u32>()), 0..40)) {
            let mut space = bridge();
            for (register, value) in writes {
                space.write(register, &value.to_le_bytes());
                let now = forwarding(&space);
                prop_assert!(now.memory.end <= 1 << 32);
                prop_assert!(now.memory.start.is_multiple_of(WINDOW_GRANULARITY_BYTES));
                prop_assert!(now.memory.end.is_multiple_of(WINDOW_GRANULARITY_BYTES));
                prop_assert!(now.memory.is_empty() || space.has_command(command::MEMORY));
                prop_assert_eq!(now.requests, space.has_command(command::BUS_MASTER));
            }
        }
    }
}
