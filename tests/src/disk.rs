//! Disk images with known contents.
//!
//! Word `w` of sector `s` is `(s << 16 | w) * 0x9e37_79b9_7f4a_7c15`; the guests look for that, and write
//! the complement.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;

/// Writes an image of `sectors` prepared sectors to `directory`.
///
/// # Panics
///
/// When it cannot be written.
pub fn prepare(directory: &Path, sectors: u64) -> PathBuf {
    let path = directory.join("disk.img");
    let image: Vec<u8> = (0..sectors).flat_map(sector).collect();
    fs::write(&path, image).expect("the image is written");
    path
}

/// What sector `number` has after its preparation.
pub fn sector(number: u64) -> Vec<u8> {
    (0..64)
        .flat_map(|word| {
            (number << 16 | word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .to_le_bytes()
        })
        .collect()
}

/// What sector `number` has after a guest's test wrote it.
pub fn written_sector(number: u64) -> Vec<u8> {
    sector(number).into_iter().map(|byte| !byte).collect()
}
