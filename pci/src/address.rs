//! Where a function is: segment, bus, device and function number (PCI Express Base Specification 5.0,
//! 7.2.2; PCI Local Bus Specification 3.0, 3.2.2.3.2).

use std::fmt;

/// The address of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionAddress {
    /// Segment group: each has its own buses and its own ECAM window.
    pub segment: u16,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl FunctionAddress {
    /// Function 0 of `device` on the root bus of segment 0.
    pub const fn on_root_bus(device: u8) -> Self {
        Self {
            segment: 0,
            bus: 0,
            device,
            function: 0,
        }
    }

    /// The function, and the offset in its configuration space, that the byte at `offset` in the ECAM
    /// window of `segment` belongs to (PCIe 5.0, table 7-1). `None` beyond 256 buses.
    pub fn from_ecam(segment: u16, offset: u64) -> Option<(Self, u16)> {
        let bus = u8::try_from(offset >> 20).ok()?;
        let address = Self {
            segment,
            bus,
            device: low_bits(offset >> 15, 0x1f),
            function: low_bits(offset >> 12, 0x7),
        };
        let register = u16::try_from(offset & 0xfff).ok()?;
        Some((address, register))
    }

    /// The function, and the offset of the doubleword in its configuration space, that a value of
    /// CONFIG_ADDRESS names (PCI 3.0, 3.2.2.3.2, figure 3-2). `None` when its enable bit is clear.
    pub fn from_config_address(value: u32) -> Option<(Self, u16)> {
        const ENABLE: u32 = 1 << 31;
        if value & ENABLE == 0 {
            return None;
        }
        let value = u64::from(value);
        let address = Self {
            segment: 0,
            bus: low_bits(value >> 16, 0xff),
            device: low_bits(value >> 11, 0x1f),
            function: low_bits(value >> 8, 0x7),
        };
        Some((address, u16::from(low_bits(value, 0xfc))))
    }

    /// Device and function number in one byte, as requester identifiers have them.
    pub const fn device_function(self) -> u8 {
        (self.device & 0x1f) << 3 | self.function & 0x7
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment, self.bus, self.device, self.function
        )
    }
}

fn low_bits(value: u64, mask: u8) -> u8 {
    u8::try_from(value & u64::from(mask)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_lead_to_the_same_function() {
        let expected = FunctionAddress {
            segment: 0,
            bus: 3,
            device: 31,
            function: 5,
        };
        let ecam = 3 << 20 | 31 << 15 | 5 << 12 | 0x44;
        assert_eq!(FunctionAddress::from_ecam(0, ecam), Some((expected, 0x44)));
        let ports = 1 << 31 | 3 << 16 | 31 << 11 | 5 << 8 | 0x44 | 3;
        assert_eq!(
            FunctionAddress::from_config_address(ports),
            Some((expected, 0x44))
        );
        assert_eq!(expected.to_string(), "0000:03:1f.5");
        assert_eq!(expected.device_function(), 0xfd);
    }

    #[test]
    fn nothing_without_enable_or_beyond_the_buses() {
        assert_eq!(FunctionAddress::from_config_address(0x7fff_ffff), None);
        assert_eq!(FunctionAddress::from_ecam(0, 256 << 20), None);
        let (address, register) = FunctionAddress::from_ecam(7, 0xfff_ffff).unwrap();
        assert_eq!((address.segment, address.bus, register), (7, 255, 0xfff));
    }
}
