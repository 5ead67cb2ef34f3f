//! Ethernet addresses (IEEE 802, EUI-48).

use std::fmt;
use std::str::FromStr;

/// Set in the first octet of an address that is for several stations.
const MULTICAST: u8 = 1 << 0;
/// Set in the first octet of an address that no manufacturer has assigned.
const LOCAL: u8 = 1 << 1;

/// The address of one network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress([u8; 6]);

/// Why a text or some octets are not the address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacAddressError {
    /// The text is not six pairs of hexadecimal digits with colons between them.
    #[error("MAC address {text:?} is not six pairs of hexadecimal digits as in 52:01:02:03:04:05")]
    Malformed {
        /// The text.
        text: String,
    },
    /// The address is for many stations, so that no interface can have it.
    #[error("MAC address {address} is a multicast address: the first octet has to be even")]
    Multicast {
        /// The address.
        address: String,
    },
    /// All octets are zero.
    #[error("MAC address 00:00:00:00:00:00 is nobody's: leave it out to have one derived")]
    Zero,
}

impl MacAddress {
    /// The address with these octets.
    ///
    /// # Errors
    ///
    /// [`MacAddressError`] when an interface cannot have it.
    pub fn new(octets: [u8; 6]) -> Result<Self, MacAddressError> {
        let address = Self(octets);
        if octets == [0; 6] {
            return Err(MacAddressError::Zero);
        }
        if octets[0] & MULTICAST != 0 {
            return Err(MacAddressError::Multicast {
                address: address.to_string(),
            });
        }
        Ok(address)
    }

    /// An address that follows from `seed` alone: a unicast and locally administered one, with 46 bits
    /// that differ from seed to seed.
    ///
    /// Guests tie names and leases to the address, so that the same seed must give the same address in
    /// each version of this program. Hence FNV-1a of 64 bits, spelled out here: its constants are
    /// published and final, while the standard library's hashers may change with the compiler.
    /// Not secret, and not meant to be: whoever picks the seeds could pick the address.
    pub fn derive(seed: &str) -> Self {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let hash = seed.bytes().fold(OFFSET_BASIS, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        // Folded, so that all 64 bits count.
        let [_, _, mut octets @ ..] = (hash ^ (hash >> 48)).to_be_bytes();
        octets[0] = (octets[0] & !MULTICAST) | LOCAL;
        Self(octets)
    }

    /// The six octets, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether no manufacturer has assigned it, so that it is free to be used in one's own network.
    pub const fn is_locally_administered(self) -> bool {
        self.0[0] & LOCAL != 0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || MacAddressError::Malformed {
            text: text.to_owned(),
        };
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(malformed)?;
            if part.len() != 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() {
            return Err(malformed());
        }
        Self::new(octets)
    }
}
