//! The header of a bzImage (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
//!
//! A bzImage is a boot sector and set-up code for real mode, which nobody here runs, then the
//! protected-mode code: a small program for 32 or 64 bits that unpacks the payload in its middle, an ELF
//! image, and jumps into it.

use std::ops::Range;

use linux_loader::bootparam::setup_header;
use vm_memory::ByteValued;

use crate::payload::Compression;

/// Where the header starts, in the image as in the zero page.
pub(crate) const HEADER_OFFSET: usize = 0x1f1;
/// Bytes of the image in which all of the header is.
pub(crate) const HEAD_BYTES: usize = 0x290;
const MAGIC_OFFSET: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const SECTOR_BYTES: u64 = 512;
/// The first protocol with a 64-bit entry.
const VERSION_MINIMUM: u16 = 0x20c;
const LOADED_HIGH: u8 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry at 0x200 of the protected-mode code.
const XLF_KERNEL_64: u16 = 1 << 0;
/// A payload ends with the size of what is packed, 32 bits little endian: gzip's own trailer, and what
/// Linux's build appends to the other formats.
pub(crate) const SIZE_BYTES: u64 = 4;

/// Why a bzImage cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum BzImageError {
    /// Before the 64-bit boot protocol.
    #[error(
        "it speaks version {}.{:02} of the boot protocol (offset 0x206), but 2.12 is the first with a 64-bit entry: use Linux 3.8 or newer",
        version >> 8,
        version & 0xff
    )]
    Old { version: u16 },
    /// A zImage.
    #[error("it is a zImage for real mode (loadflags {flags:#x} at offset 0x211): build a bzImage")]
    ZImage { flags: u8 },
    /// No 64-bit entry.
    #[error(
        "it has no 64-bit entry (xloadflags {flags:#x} at offset 0x236): it is a 32-bit kernel, use one with CONFIG_64BIT=y"
    )]
    No64BitEntry { flags: u16 },
    /// Something ends beyond the end of the file.
    #[error(
        "it is truncated: {what} ends at offset {end:#x}, but the file has {length:#x} bytes: copy it again"
    )]
    Truncated {
        what: &'static str,
        end: u64,
        length: u64,
    },
    /// A header field that no build writes.
    #[error("its {what} {value:#x} at offset {offset:#x} is not valid: the file is damaged")]
    Field {
        what: &'static str,
        offset: u64,
        value: u64,
    },
}

/// The packed kernel in a bzImage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Where it is in the file, with the size at its end.
    pub file: Range<u64>,
    /// How it is packed.
    pub compression: Compression,
    /// Bytes of what is packed, as its end says.
    pub unpacked_bytes: u32,
}

/// A recognised bzImage. `payload` is filled in by whoever reads the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BzImage {
    /// The header as it is in the file; the zero page gets a copy.
    pub header: setup_header,
    /// Where the protected-mode code is in the file.
    pub code: Range<u64>,
    /// What can be unpacked.
    pub payload: Option<Payload>,
}

impl BzImage {
    /// Whether the first bytes of a file are those of an image with a header. It is not enough that they
    /// are an EFI program: most bzImages are that as well.
    pub fn recognise(head: &[u8]) -> bool {
        head.get(MAGIC_OFFSET..)
            .is_some_and(|from| from.starts_with(MAGIC))
    }

    /// Reads the header from the first bytes of a file of `length` bytes.
    pub fn parse(head: &[u8], length: u64) -> Result<Self, BzImageError> {
        let truncated = |what, end| BzImageError::Truncated { what, end, length };
        let from = head.get(HEADER_OFFSET..).unwrap_or_default();
        let mut header =
            setup_header::read_exact_from(from).map_err(|_| truncated("the header", 0x26c))?;
        clear_beyond_end(&mut header, head);
        if header.version < VERSION_MINIMUM {
            return Err(BzImageError::Old {
                version: header.version,
            });
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(BzImageError::ZImage {
                flags: header.loadflags,
            });
        }
        if header.xloadflags & XLF_KERNEL_64 == 0 {
            return Err(BzImageError::No64BitEntry {
                flags: header.xloadflags,
            });
        }
        let alignment = header.kernel_alignment;
        if !alignment.is_power_of_two() {
            return Err(BzImageError::Field {
                what: "kernel alignment",
                offset: 0x230,
                value: alignment.into(),
            });
        }
        let setup_sectors = match header.setup_sects {
            0 => 4,
            sectors => u64::from(sectors),
        };
        let code_start = setup_sectors.saturating_add(1).saturating_mul(SECTOR_BYTES);
        // The size counts paragraphs of 16 bytes; the last one need not be whole.
        let code_bytes = u64::from(header.syssize).saturating_mul(16);
        let end = code_start.saturating_add(code_bytes);
        if end.saturating_sub(15) > length || code_start >= length {
            return Err(truncated("the protected-mode code", end));
        }
        Ok(Self {
            header,
            code: code_start..end.min(length),
            payload: None,
        })
    }

    /// Where the payload is in a file of `length` bytes; `None` when the image does not say.
    pub fn payload_range(&self, length: u64) -> Result<Option<Range<u64>>, BzImageError> {
        let payload_bytes = u64::from(self.header.payload_length);
        if payload_bytes <= SIZE_BYTES {
            return Ok(None);
        }
        let start = self
            .code
            .start
            .saturating_add(self.header.payload_offset.into());
        let end = start.saturating_add(payload_bytes);
        if end > length {
            return Err(BzImageError::Truncated {
                what: "the payload",
                end,
                length,
            });
        }
        Ok(Some(start..end))
    }
}

/// The header ends where the jump at 0x200 goes to; what follows is code, not fields.
fn clear_beyond_end(header: &mut setup_header, head: &[u8]) {
    let jump = head.get(0x201).copied().unwrap_or(0);
    let known = MAGIC_OFFSET
        .saturating_add(jump.into())
        .saturating_sub(HEADER_OFFSET);
    if let Some(rest) = header.as_mut_slice().get_mut(known..) {
        rest.fill(0);
    }
}

#[cfg(test)]
mod tests;
