//! What a tap's reader takes over from the host's network stack (if_tun.h, `TUN_F_*`).

use std::fs::File;
use std::io;
use std::ops::{BitOr, BitOrAssign};

use libc::c_uint;

use super::ioctl;

/// A set of offloads of a tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapOffloads(c_uint);

impl TapOffloads {
    /// None: the reader gets plain frames, checksummed and at most as long as the MTU allows.
    pub const NONE: Self = Self(0);
    /// Frames whose checksum is still to be made.
    pub const CSUM: Self = Self(libc::TUN_F_CSUM);
    /// TCP over IPv4, still to be cut into segments.
    pub const TSO4: Self = Self(libc::TUN_F_TSO4);
    /// TCP over IPv6, still to be cut into segments.
    pub const TSO6: Self = Self(libc::TUN_F_TSO6);
    /// TCP with congestion notification, still to be cut into segments.
    pub const TSO_ECN: Self = Self(libc::TUN_F_TSO_ECN);
    /// UDP, still to be cut into IP fragments.
    pub const UFO: Self = Self(libc::TUN_F_UFO);
    /// UDP over IPv4, still to be cut into datagrams.
    pub const USO4: Self = Self(libc::TUN_F_USO4);
    /// UDP over IPv6, still to be cut into datagrams.
    pub const USO6: Self = Self(libc::TUN_F_USO6);
    /// UDP over both, which the kernel knows only together.
    pub const USO: Self = Self(libc::TUN_F_USO4 | libc::TUN_F_USO6);
    /// All of the above.
    pub const ALL: Self = Self(
        Self::CSUM.0 | Self::TSO4.0 | Self::TSO6.0 | Self::TSO_ECN.0 | Self::UFO.0 | Self::USO.0,
    );

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The largest part of the set that the kernel has a meaning for: nothing without
    /// [`CSUM`](Self::CSUM), [`TSO_ECN`](Self::TSO_ECN) only with one of the TSO, and
    /// [`USO4`](Self::USO4) and [`USO6`](Self::USO6) only together.
    #[must_use]
    pub const fn normalised(self) -> Self {
        if !self.contains(Self::CSUM) {
            return Self::NONE;
        }
        let mut bits = self.0;
        if bits & (Self::TSO4.0 | Self::TSO6.0) == 0 {
            bits &= !Self::TSO_ECN.0;
        }
        if bits & Self::USO.0 != Self::USO.0 {
            bits &= !Self::USO.0;
        }
        Self(bits)
    }

    pub(super) const fn bits(self) -> c_uint {
        self.0
    }

    /// Any set, meaningful or not.
    #[cfg(test)]
    pub(crate) const fn from_bits_for_test(bits: c_uint) -> Self {
        Self(bits)
    }
}

impl BitOr for TapOffloads {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for TapOffloads {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Finds what this kernel's taps can do, by trying; leaves all of it off.
pub(super) fn probe(tap: &File) -> io::Result<TapOffloads> {
    // A kernel that knows them all answers at once, so that the usual start costs two calls.
    let mut supported = TapOffloads::NONE;
    if accepts(tap, TapOffloads::ALL)? {
        supported = TapOffloads::ALL;
    } else if accepts(tap, TapOffloads::CSUM)? {
        supported = TapOffloads::CSUM;
        for candidate in [
            TapOffloads::TSO4,
            TapOffloads::TSO6,
            TapOffloads::TSO_ECN,
            TapOffloads::UFO,
            TapOffloads::USO,
        ] {
            let wanted = (supported | candidate).normalised();
            if wanted.contains(candidate) && accepts(tap, wanted)? {
                supported = wanted;
            }
        }
    }
    ioctl::set_offloads(tap, TapOffloads::NONE.bits())?;
    Ok(supported)
}

fn accepts(tap: &File, offloads: TapOffloads) -> io::Result<bool> {
    match ioctl::set_offloads(tap, offloads.bits()) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}
