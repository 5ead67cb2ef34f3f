//! What an image's bitmaps take (QEMU, docs/interop/qcow2, "Bitmaps"): dirty bitmaps that QEMU keeps in an
//! image. They are not used here; their clusters are.

use std::io;

use super::fields::{u16_at, u32_at, u64_at};
use super::header::Header;
use super::medium::Medium;

/// The header extension that says where they are.
const EXTENSION: u32 = 0x2385_2875;
/// Bitmaps of an image, and bytes of their directory, as QEMU has them.
const BITMAPS_MAX: u32 = 65535;
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// In an entry of a bitmap's table: where the cluster is.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bytes of an entry of the directory before its name.
const ENTRY_BYTES: usize = 24;

/// A bitmap's table, or the directory of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub bytes: u64,
    /// Its entries lead to clusters of bits.
    pub is_table: bool,
}

/// Where the cluster of an entry of a bitmap's table is.
pub(super) fn cluster(entry: u64) -> Option<u64> {
    (entry & OFFSET != 0).then_some(entry & OFFSET)
}

/// Looks through the header's extensions and the directory.
pub(super) fn places(medium: &Medium<'_>, header: &Header) -> io::Result<Vec<Place>> {
    let broken = || io::Error::other("its directory of bitmaps is broken");
    let (count, bytes, offset) = extension(medium, header)?.ok_or_else(broken)?;
    if count > BITMAPS_MAX || bytes > DIRECTORY_BYTES_MAX.min(medium.bytes) {
        return Err(broken());
    }
    let mut directory = vec![0; usize::try_from(bytes).map_err(|_| broken())?];
    medium.read(offset, &mut directory)?;
    let mut places = vec![Place {
        offset,
        bytes,
        is_table: false,
    }];
    let mut rest = directory.as_slice();
    for _ in 0..count {
        let (entry, length) = Entry::parse(rest).ok_or_else(broken)?;
        rest = rest.get(length..).unwrap_or_default();
        places.push(Place {
            offset: entry.table,
            bytes: u64::from(entry.table_entries).saturating_mul(8),
            is_table: true,
        });
    }
    Ok(places)
}

/// How many there are, and length and offset of their directory.
fn extension(medium: &Medium<'_>, header: &Header) -> io::Result<Option<(u32, u64, u64)>> {
    let mut at = u64::from(header.header_length);
    // Ends: each extension has at least eight bytes, and all are in one cluster.
    while at < header.cluster_bytes() {
        let mut bytes = [0; 32];
        medium.read(at, &mut bytes)?;
        let (kind, length) = (u32_at(&bytes, 0), u32_at(&bytes, 4));
        match kind {
            Some(0) | None => break,
            Some(EXTENSION) => {
                let found = u32_at(&bytes, 8)
                    .zip(u64_at(&bytes, 16))
                    .zip(u64_at(&bytes, 24));
                return Ok(found.map(|((count, bytes), offset)| (count, bytes, offset)));
            }
            Some(_) => {
                let padded = u64::from(length.unwrap_or(0)).next_multiple_of(8);
                at = at.saturating_add(8).saturating_add(padded);
            }
        }
    }
    Ok(None)
}

/// An entry of the directory.
struct Entry {
    table: u64,
    table_entries: u32,
}

impl Entry {
    /// With its length in bytes.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let entry = Self {
            table: u64_at(bytes, 0)?,
            table_entries: u32_at(bytes, 8)?,
        };
        let name = usize::from(u16_at(bytes, 18)?);
        let extra = usize::try_from(u32_at(bytes, 20)?).ok()?;
        let length = ENTRY_BYTES.checked_add(name)?.checked_add(extra)?;
        let length = length.checked_next_multiple_of(8)?;
        (length <= bytes.len()).then_some((entry, length))
    }
}
