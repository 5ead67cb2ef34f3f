//! The head of a qcow2 image (QEMU, docs/interop/qcow2.txt, "Header"), read to be shown: also that of an image
//! that cannot be used.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::Qcow2Info;

/// Bytes in which all that is looked at lies: header, extensions and the name of the backing file are in the
/// first cluster, which has at most this.
const HEAD_BYTES: usize = 2 << 20;
/// Bytes of a version 2 header, and of the smallest of version 3.
const VERSION_2_BYTES: u32 = 72;
const VERSION_3_BYTES: u32 = 104;
/// Longest name of a backing file.
const NAME_MAX_BYTES: u32 = 1023;
/// Header extension: the format of the backing file.
const BACKING_FORMAT: u32 = 0xe279_2aca;
/// Incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const COMPRESSION_TYPE: u64 = 1 << 3;
/// Compatible feature.
const LAZY_REFCOUNTS: u64 = 1;

/// What is shown of an image.
#[derive(Debug)]
pub(super) struct Header {
    pub size_bytes: u64,
    pub info: Qcow2Info,
}

/// The first bytes of a file; what is beyond its end is not there.
struct Head(Vec<u8>);

impl Head {
    fn bytes(&self, at: u64, length: u32) -> Option<&[u8]> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        self.0.get(at..end)
    }

    fn u32(&self, at: u64) -> Option<u32> {
        let bytes = self.bytes(at, 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes))
    }

    fn u64(&self, at: u64) -> Option<u64> {
        let bytes = self.bytes(at, 8)?.try_into().ok()?;
        Some(u64::from_be_bytes(bytes))
    }

    fn text(&self, at: u64, length: u32) -> Option<String> {
        let bytes = self.bytes(at, length)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Header {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; HEAD_BYTES];
        let mut length = 0;
        while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
            let offset = u64::try_from(length).unwrap_or(u64::MAX);
            match file.read_at(rest, offset) {
                Ok(0) => break,
                Ok(count) => length = length.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(length);
        let head = Head(bytes);
        Self::parse(&head).ok_or_else(|| io::Error::other("this is no head of a qcow2 image"))
    }

    fn parse(head: &Head) -> Option<Self> {
        if head.bytes(0, 4)? != b"QFI\xfb" {
            return None;
        }
        let version = head.u32(4).filter(|version| [2, 3].contains(version))?;
        let cluster_bytes = 1_u64.checked_shl(head.u32(20)?)?;
        let (name_at, name_bytes) = (head.u64(8)?, head.u32(16)?);
        let backing = match name_at {
            0 => None,
            // A name that cannot be shown must not look like none.
            _ => Some(head.text(name_at, name_bytes.min(NAME_MAX_BYTES))?),
        };
        let (incompatible, compatible, length) = match version {
            2 => (0, 0, VERSION_2_BYTES),
            _ => (
                head.u64(72)?,
                head.u64(80)?,
                head.u32(100)?.max(VERSION_3_BYTES),
            ),
        };
        let compression = match incompatible & COMPRESSION_TYPE {
            0 => "zlib",
            _ if head.bytes(104, 1) == Some(&[1]) => "zstd",
            _ => "unknown",
        };
        Some(Self {
            size_bytes: head.u64(24)?,
            info: Qcow2Info {
                version,
                cluster_bytes,
                compression,
                backing,
                backing_format: backing_format(head, u64::from(length)),
                snapshots: head.u32(60)?,
                lazy_refcounts: compatible & LAZY_REFCOUNTS != 0,
                dirty: incompatible & DIRTY != 0,
                corrupt: incompatible & CORRUPT != 0,
            },
        })
    }
}

/// Looks through the header extensions from `at` on. Each takes at least 8 bytes of the head.
fn backing_format(head: &Head, mut at: u64) -> Option<String> {
    loop {
        let (kind, length) = (head.u32(at)?, head.u32(at.checked_add(4)?)?);
        let data = at.checked_add(8)?;
        match kind {
            0 => return None,
            BACKING_FORMAT => return head.text(data, length),
            _ => at = data.checked_add(u64::from(length).checked_next_multiple_of(8)?)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever a file has at its start, it is described or refused.
        #[test]
        fn any_bytes_do_no_harm(
            mut bytes in prop::collection::vec(any::<u8>(), 0..600),
            version in 0_u8..5,
            is_image in any::<bool>(),
        ) {
            if is_image && bytes.len() > 8 {
                bytes[..8].copy_from_slice(&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, version]);
            }
            if let Some(header) = Header::parse(&Head(bytes)) {
                prop_assert!([2, 3].contains(&header.info.version));
                prop_assert!(header.info.backing.is_none_or(|name| name.len() <= 3 * 1023));
            }
        }
    }
}
