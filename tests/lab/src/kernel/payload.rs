//! The kernel inside a bzImage (Linux boot protocol, "payload_offset" and "payload_length"), where it
//! is packed as Debian packs it: an ELF file in LZ4's legacy frames.

use crate::error::{LabError, Result};

/// Magic number of LZ4's legacy frame, little endian.
const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
/// What a block of a legacy frame unpacks to at the most, in bytes.
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// Where the boot protocol's header has the number of 512-byte sectors of real-mode code.
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// Unpacks the kernel of a bzImage.
///
/// # Errors
///
/// When the image is not a bzImage, or is packed otherwise.
pub(super) fn payload(image: &[u8]) -> Result<Vec<u8>> {
    let packed = packed(image).ok_or_else(|| unusable("is not a bzImage"))?;
    let (magic, mut blocks) = split_u32(packed).ok_or_else(|| unusable("has no payload"))?;
    if magic != LZ4_LEGACY_MAGIC {
        return Err(unusable("is not packed with LZ4"));
    }
    let mut kernel = Vec::new();
    // Four bytes with the unpacked length follow the last block: no block is that short.
    while let Some((length, rest)) = split_u32(blocks) {
        let Some((block, rest)) = rest.split_at_checked(length as usize) else {
            break;
        };
        let block = lz4_flex::block::decompress(block, LZ4_BLOCK_BYTES)
            .map_err(|error| unusable(&format!("has a broken payload: {error}")))?;
        kernel.extend_from_slice(&block);
        blocks = rest;
    }
    if !kernel.starts_with(b"\x7fELF") {
        return Err(unusable("holds no ELF file"));
    }
    Ok(kernel)
}

fn packed(image: &[u8]) -> Option<&[u8]> {
    if image.get(0x202..0x206)? != b"HdrS".as_slice() {
        return None;
    }
    let sectors = usize::from(*image.get(SETUP_SECTORS)?) + 1;
    let (offset, _) = split_u32(image.get(PAYLOAD_OFFSET..)?)?;
    let (length, _) = split_u32(image.get(PAYLOAD_LENGTH..)?)?;
    let start = sectors * 512 + offset as usize;
    image.get(start..start + length as usize)
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn unusable(what: &str) -> LabError {
    LabError::Unusable(format!("Debian's kernel image {what}"))
}
