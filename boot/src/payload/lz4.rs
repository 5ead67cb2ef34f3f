//! Payloads in LZ4's legacy frame (lz4, doc/lz4_Frame_format.md, "Legacy frame"), the one that Linux uses:
//! a magic number, then blocks of 8 MiB, the last one shorter, each with its packed length before it and
//! independent of the others. So each is decoded by whatever CPU is free.

use std::fs::File;
use std::sync::OnceLock;

use super::input::{corrupt, read_exact, without_size};
use super::{Begin, PayloadError};
use crate::bzimage::Payload;
use crate::image::ImageLayout;
use crate::parallel;

/// 0x184c2102, little endian.
pub(super) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// What a block unpacks to.
pub(super) const BLOCK_BYTES: usize = 8 << 20;
/// The longest that a packed block can be (lz4.h, `LZ4_COMPRESSBOUND`).
const PACKED_MAXIMUM_BYTES: u32 = (8 << 20) + (8 << 20) / 255 + 16;

/// A packed block in the file.
#[derive(Debug, Clone, Copy)]
struct Block {
    offset: u64,
    packed_bytes: u32,
    unpacked_bytes: usize,
}

/// Unpacks the blocks, on all CPUs when there are several.
pub(super) fn unpack<'m>(
    file: &File,
    payload: &Payload,
    begin: &Begin<'_, 'm>,
) -> Result<ImageLayout<'m>, PayloadError> {
    let blocks = find_blocks(file, payload)?;
    // Made from the first block by the thread that decodes it. The others decode meanwhile, and wait for it
    // before they place what they have; empty when the first block was bad.
    let layout: OnceLock<Option<ImageLayout<'m>>> = OnceLock::new();
    parallel::for_each(blocks.len(), || {
        let mut packed = Vec::new();
        let mut unpacked = Vec::new();
        let (blocks, layout) = (&blocks, &layout);
        move |index: usize| {
            let Some(block) = blocks.get(index) else {
                return Ok(());
            };
            let decoded = decode(file, payload, block, &mut packed, &mut unpacked);
            if index == 0 {
                let started = decoded.and_then(begin);
                let (started, result) = match started {
                    Ok(started) => (Some(started), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // Nobody else sets it.
                let _ = layout.set(started);
                result?;
            } else {
                decoded?;
            }
            if let Some(layout) = layout.wait() {
                let offset = u64::try_from(index.saturating_mul(BLOCK_BYTES)).unwrap_or(u64::MAX);
                let bytes = unpacked.get(..block.unpacked_bytes).unwrap_or_default();
                layout.place(offset, bytes)?;
            }
            Ok::<(), PayloadError>(())
        }
    })?;
    layout
        .into_inner()
        .flatten()
        .ok_or_else(|| corrupt(payload.compression, payload.file.start, "it is empty"))
}

/// Walks the lengths of the blocks. There are no more than the unpacked size has room for.
fn find_blocks(file: &File, payload: &Payload) -> Result<Vec<Block>, PayloadError> {
    let range = without_size(payload);
    let bad = |offset, detail: String| corrupt(payload.compression, offset, detail);
    let mut blocks = Vec::new();
    let mut left = usize::try_from(payload.unpacked_bytes).unwrap_or(usize::MAX);
    let mut offset = range.start.saturating_add(4);
    while left > 0 {
        let mut length = [0; 4];
        let data = offset.saturating_add(4);
        if data > range.end {
            let detail = format!("{left} of {} bytes are missing", payload.unpacked_bytes);
            return Err(bad(offset, detail));
        }
        read_exact(file, &mut length, offset)?;
        let packed_bytes = u32::from_le_bytes(length);
        let after = data.saturating_add(packed_bytes.into());
        if packed_bytes > PACKED_MAXIMUM_BYTES || after > range.end {
            let detail = format!("a block of {packed_bytes} bytes is too long");
            return Err(bad(offset, detail));
        }
        let unpacked_bytes = left.min(BLOCK_BYTES);
        blocks.push(Block {
            offset: data,
            packed_bytes,
            unpacked_bytes,
        });
        left = left.saturating_sub(unpacked_bytes);
        offset = after;
    }
    if offset != range.end {
        let detail = format!("there is more than {} bytes", payload.unpacked_bytes);
        return Err(bad(offset, detail));
    }
    Ok(blocks)
}

/// Reads and decodes one block into the thread's buffers, which grow once.
fn decode<'b>(
    file: &File,
    payload: &Payload,
    block: &Block,
    packed: &mut Vec<u8>,
    unpacked: &'b mut Vec<u8>,
) -> Result<&'b [u8], PayloadError> {
    let packed_bytes = usize::try_from(block.packed_bytes).unwrap_or(usize::MAX);
    if packed.len() < packed_bytes {
        *packed = vec![0; packed_bytes];
    }
    if unpacked.len() < block.unpacked_bytes {
        *unpacked = vec![0; block.unpacked_bytes];
    }
    let from = packed.get_mut(..packed_bytes).unwrap_or_default();
    let into = unpacked.get_mut(..block.unpacked_bytes).unwrap_or_default();
    read_exact(file, from, block.offset)?;
    let length = lz4_flex::block::decompress_into(from, into)
        .map_err(|error| corrupt(payload.compression, block.offset, error))?;
    if length == block.unpacked_bytes {
        Ok(into)
    } else {
        let detail = format!(
            "a block holds {length} bytes instead of {}",
            block.unpacked_bytes
        );
        Err(corrupt(payload.compression, block.offset, detail))
    }
}
