//! Payloads that are one stream: gzip, bzip2, LZMA, xz, and those that are not packed. One thread, a buffer
//! of a quarter of a megabyte and the decoder's window.
//!
//! xz and LZMA go through liblzma, which decodes a Debian kernel in two thirds of lzma-rust2's time.

use std::fs::File;
use std::io::{BufReader, Read};

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;

use super::input::{Input, Progress, corrupt, without_size};
use super::{Begin, Compression, PayloadError};
use crate::bzimage::Payload;
use crate::image::ImageLayout;

/// What is decoded at a time: it stays in a CPU's own cache until it is copied.
const BUFFER_BYTES: usize = 256 << 10;
/// What is read from the file at a time.
const INPUT_BYTES: usize = 128 << 10;
/// What liblzma may allocate. Linux packs with windows of up to 128 MiB, of which no more is touched than
/// the image is long.
const LZMA_MEMORY_MAXIMUM_BYTES: u64 = 256 << 20;

/// Unpacks one stream.
pub(super) fn unpack<'m>(
    file: &File,
    payload: &Payload,
    begin: &Begin<'_, 'm>,
) -> Result<ImageLayout<'m>, PayloadError> {
    let compression = payload.compression;
    let range = match compression {
        // The size is part of gzip's own trailer, with the checksum.
        Compression::Gzip => payload.file.clone(),
        _ => without_size(payload),
    };
    let progress = Progress::new(range.start);
    let input = Input::new(file, &range, &progress);
    let input = BufReader::with_capacity(INPUT_BYTES, input);
    let lzma = |stream: Result<Stream, liblzma::stream::Error>| {
        stream.map_err(|error| corrupt(compression, range.start, error))
    };
    let mut decoder: Box<dyn Read + '_> = match compression {
        Compression::Gzip => Box::new(GzDecoder::new(input)),
        Compression::Bzip2 => Box::new(BzDecoder::new(input)),
        Compression::Lzma => {
            let stream = lzma(Stream::new_lzma_decoder(LZMA_MEMORY_MAXIMUM_BYTES))?;
            Box::new(XzDecoder::new_stream(input, stream))
        }
        Compression::Xz => {
            let stream = lzma(Stream::new_stream_decoder(LZMA_MEMORY_MAXIMUM_BYTES, 0))?;
            Box::new(XzDecoder::new_stream(input, stream))
        }
        _ => Box::new(input),
    };

    let unpacked_bytes = u64::from(payload.unpacked_bytes);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut layout = None;
    let mut offset = 0u64;
    // Ends: either the stream does, or it is longer than it says.
    loop {
        let filled = fill(&mut *decoder, &mut buffer)
            .map_err(|error| progress.explain(compression, &error))?;
        let piece = buffer.get(..filled).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        let after = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
        if after > unpacked_bytes {
            let detail = format!("it holds more than the {unpacked_bytes} bytes that its end says");
            return Err(corrupt(compression, progress.position(), detail));
        }
        let layout = match &mut layout {
            Some(layout) => layout,
            none => none.insert(begin(piece)?),
        };
        layout.place(offset, piece)?;
        offset = after;
    }
    match layout {
        Some(layout) if offset == unpacked_bytes => Ok(layout),
        _ => {
            let detail = format!("it ends after {offset} of {unpacked_bytes} bytes");
            Err(corrupt(compression, progress.position(), detail))
        }
    }
}

/// Fills `buffer` as far as the stream goes.
fn fill(decoder: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0usize;
    while let Some(rest) = buffer.get_mut(filled..)
        && !rest.is_empty()
    {
        match decoder.read(rest) {
            Ok(0) => break,
            Ok(read) => filled = filled.saturating_add(read),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
