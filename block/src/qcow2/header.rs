//! The header of a qcow2 image (QEMU, docs/interop/qcow2, "Header"), as what looks after images needs it:
//! where the tables are. The library reads it by itself.
//!
//! On whatever thread looks after an image.

use std::io;

use super::medium::Medium;

/// Offsets in the header.
pub(super) const VERSION: u64 = 4;
pub(super) const CLUSTER_BITS: u64 = 20;
pub(super) const SIZE: u64 = 24;
pub(super) const CRYPT_METHOD: u64 = 32;
pub(super) const L1_ENTRIES: u64 = 36;
pub(super) const L1_TABLE: u64 = 40;
pub(super) const REFCOUNT_TABLE: u64 = 48;
pub(super) const REFCOUNT_TABLE_CLUSTERS: u64 = 56;
pub(super) const SNAPSHOTS: u64 = 60;
pub(super) const SNAPSHOT_TABLE: u64 = 64;
pub(super) const INCOMPATIBLE: u64 = 72;
pub(super) const AUTOCLEAR: u64 = 88;
pub(super) const REFCOUNT_ORDER: u64 = 96;
pub(super) const HEADER_LENGTH: u64 = 100;
pub(super) const COMPRESSION_TYPE: u64 = 104;

/// Incompatible features.
pub(super) const DIRTY: u64 = 1;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const COMPRESSION: u64 = 1 << 3;
/// Those of an image whose tables can be followed here.
const KNOWN: u64 = DIRTY | CORRUPT | COMPRESSION;
/// Autoclear feature: the bitmaps are as the image is.
pub(super) const BITMAPS: u64 = 1;

/// Compression types.
pub(super) const ZLIB: u8 = 0;
pub(super) const ZSTD: u8 = 1;

/// The most entries of a first mapping table, bytes of the table of reference count blocks, and
/// snapshots, as QEMU has them.
pub(super) const L1_ENTRIES_MAX: u32 = 4 << 20;
pub(super) const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
pub(super) const SNAPSHOTS_MAX: u32 = 65536;
/// Smallest and largest cluster.
const CLUSTER_BITS_RANGE: std::ops::RangeInclusive<u32> = 9..=21;
/// Widest reference count: 64 bits.
const REFCOUNT_ORDER_MAX: u32 = 6;
/// Bytes of a version 2 header, and those of version 3 that are looked at.
const VERSION_2_BYTES: usize = 72;
const VERSION_3_BYTES: usize = 112;

/// A mapping table of the first level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct L1Table {
    pub offset: u64,
    pub entries: u32,
}

/// The header, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u32,
    pub cluster_bits: u32,
    pub size_bytes: u64,
    pub l1: L1Table,
    pub refcount_table: u64,
    pub refcount_table_clusters: u32,
    pub snapshots: u32,
    pub snapshot_table: u64,
    pub incompatible: u64,
    pub autoclear: u64,
    /// Reference counts are 2 to this power bits wide.
    pub refcount_order: u32,
    pub compression: u8,
    pub is_encrypted: bool,
    pub header_length: u32,
}

impl Header {
    /// Reads the header of an image whose tables can be followed.
    pub(super) fn read(medium: &Medium<'_>) -> io::Result<Self> {
        let head = RawHeader::read(medium)?;
        let version = head.u32(VERSION);
        if !head.has_magic() || ![2, 3].contains(&version) {
            return Err(io::Error::other("this is no qcow2 image"));
        }
        let is_3 = version == 3;
        let later = |value: u64| if is_3 { value } else { 0 };
        let header_length = if is_3 { head.u32(HEADER_LENGTH) } else { 72 };
        let incompatible = later(head.u64(INCOMPATIBLE));
        let has_type = u64::from(header_length) > COMPRESSION_TYPE;
        let header = Self {
            version,
            cluster_bits: head.u32(CLUSTER_BITS),
            size_bytes: head.u64(SIZE),
            l1: L1Table {
                offset: head.u64(L1_TABLE),
                entries: head.u32(L1_ENTRIES),
            },
            refcount_table: head.u64(REFCOUNT_TABLE),
            refcount_table_clusters: head.u32(REFCOUNT_TABLE_CLUSTERS),
            snapshots: head.u32(SNAPSHOTS),
            snapshot_table: head.u64(SNAPSHOT_TABLE),
            incompatible,
            autoclear: later(head.u64(AUTOCLEAR)),
            refcount_order: if is_3 { head.u32(REFCOUNT_ORDER) } else { 4 },
            compression: match incompatible & COMPRESSION != 0 && has_type {
                true => head.u8(COMPRESSION_TYPE),
                false => ZLIB,
            },
            is_encrypted: head.u32(CRYPT_METHOD) != 0,
            header_length,
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> io::Result<()> {
        let refuse = |what| Err(io::Error::other(what));
        if !CLUSTER_BITS_RANGE.contains(&self.cluster_bits) {
            return refuse("its clusters are larger or smaller than any can be");
        }
        if self.refcount_order > REFCOUNT_ORDER_MAX {
            return refuse("its reference counts are wider than any can be");
        }
        if self.l1.entries > L1_ENTRIES_MAX {
            return refuse("its table of mappings is larger than any can be");
        }
        if self.refcount_table_bytes() > REFCOUNT_TABLE_BYTES_MAX {
            return refuse("its table of reference counts is larger than any can be");
        }
        if self.snapshots > SNAPSHOTS_MAX {
            return refuse("it has more snapshots than any can have");
        }
        if self.incompatible & !KNOWN != 0 {
            return refuse(
                "it has features that are not known here, such as an external data file or extended L2 entries",
            );
        }
        if self.is_encrypted {
            return refuse("it is encrypted, which is not supported");
        }
        Ok(())
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        1_u64.wrapping_shl(self.cluster_bits)
    }

    pub(super) fn refcount_table_bytes(&self) -> u64 {
        u64::from(self.refcount_table_clusters).saturating_mul(self.cluster_bytes())
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.incompatible & DIRTY != 0
    }

    pub(super) fn is_corrupt(&self) -> bool {
        self.incompatible & CORRUPT != 0
    }

    pub(super) fn has_bitmaps(&self) -> bool {
        self.autoclear & BITMAPS != 0
    }
}

/// The header's bytes, to be changed in one write: all of it is in the file's first sector.
#[derive(Debug, Clone)]
pub(super) struct RawHeader(Vec<u8>);

impl RawHeader {
    pub(super) fn read(medium: &Medium<'_>) -> io::Result<Self> {
        let mut bytes = vec![0; VERSION_3_BYTES];
        medium.read(0, &mut bytes)?;
        let head = Self(bytes);
        match head.u32(VERSION) {
            2 => Ok(Self(head.bytes(0, VERSION_2_BYTES).to_vec())),
            _ => Ok(head),
        }
    }

    /// One write, and on the disk.
    pub(super) fn write(&self, medium: &Medium<'_>) -> io::Result<()> {
        medium.write(0, &self.0)?;
        medium.sync()
    }

    fn has_magic(&self) -> bool {
        self.bytes(0, 4) == super::MAGIC
    }

    fn bytes(&self, at: usize, length: usize) -> &[u8] {
        self.0
            .get(at..at.saturating_add(length))
            .unwrap_or_default()
    }

    fn array<const N: usize>(&self, at: u64) -> [u8; N] {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        self.bytes(at, N).try_into().unwrap_or([0; N])
    }

    fn u8(&self, at: u64) -> u8 {
        u8::from_be_bytes(self.array(at))
    }

    pub(super) fn u32(&self, at: u64) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(super) fn u64(&self, at: u64) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    pub(super) fn set_u32(&mut self, at: u64, value: u32) {
        self.set(at, &value.to_be_bytes());
    }

    pub(super) fn set_u64(&mut self, at: u64, value: u64) {
        self.set(at, &value.to_be_bytes());
    }

    /// Does nothing to a field that the header's version does not have.
    fn set(&mut self, at: u64, value: &[u8]) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(place) = self.0.get_mut(at..at.saturating_add(value.len())) {
            place.copy_from_slice(value);
        }
    }
}

/// Sets and clears incompatible features in the file; nothing in a version 2 image, which has none.
pub(super) fn change_features(medium: &Medium<'_>, set: u64, clear: u64) -> io::Result<()> {
    let mut head = RawHeader::read(medium)?;
    if head.u32(VERSION) < 3 {
        return Ok(());
    }
    let before = head.u64(INCOMPATIBLE);
    let after = (before | set) & !clear;
    if before == after {
        return Ok(());
    }
    head.set_u64(INCOMPATIBLE, after);
    head.write(medium)
}
