//! Payloads in zstd (RFC 8878): decoded in one go into a buffer of the image's size.
//!
//! By libzstd, which takes a quarter of ruzstd's time for a Debian kernel. In one go because Linux packs with
//! a window of 128 MiB: a stream would keep all that it has decoded as well, and copy it once more.

use std::fs::File;

use super::input::{corrupt, read_exact, without_size};
use super::{Begin, PayloadError};
use crate::bzimage::Payload;
use crate::image::ImageLayout;
use crate::parallel;

/// What one thread copies into guest memory at a time.
const PIECE_BYTES: usize = 8 << 20;

/// Unpacks a zstd payload.
pub(super) fn unpack<'m>(
    file: &File,
    payload: &Payload,
    begin: &Begin<'_, 'm>,
) -> Result<ImageLayout<'m>, PayloadError> {
    let range = without_size(payload);
    let packed_bytes = range.end.saturating_sub(range.start);
    // Not longer than the file, which was found to have these bytes.
    let mut packed = vec![0; usize::try_from(packed_bytes).unwrap_or(0)];
    read_exact(file, &mut packed, range.start)?;
    let unpacked_bytes = u64::from(payload.unpacked_bytes);
    let mut image = buffer(unpacked_bytes)?;
    let bad = |detail: String| corrupt(payload.compression, range.start, detail);
    zstd::bulk::Decompressor::new()
        .and_then(|mut decoder| decoder.decompress_to_buffer(&packed, &mut image))
        .map_err(|error| bad(error.to_string()))?;
    drop(packed);
    if u64::try_from(image.len()).ok() != Some(unpacked_bytes) {
        let length = image.len();
        return Err(bad(format!(
            "it holds {length} bytes instead of {unpacked_bytes}"
        )));
    }
    let layout = begin(&image)?;
    let pieces: Vec<&[u8]> = image.chunks(PIECE_BYTES).collect();
    parallel::for_each(pieces.len(), || {
        |index: usize| {
            let piece = pieces.get(index).copied().unwrap_or_default();
            let offset = index.saturating_mul(PIECE_BYTES);
            layout.place(u64::try_from(offset).unwrap_or(u64::MAX), piece)
        }
    })?;
    Ok(layout)
}

/// An empty vector of this capacity, which was compared with the guest's memory before.
fn buffer(bytes: u64) -> Result<Vec<u8>, PayloadError> {
    let mut buffer = Vec::new();
    usize::try_from(bytes)
        .ok()
        .and_then(|capacity| buffer.try_reserve_exact(capacity).ok())
        .ok_or(PayloadError::HostMemory { bytes })?;
    Ok(buffer)
}
