//! What the guest's test `blk-log` writes: records that follow from their numbers, so that the host knows
//! what must be on a disk, and what may be, from how many the guest said are flushed.

use std::ops::Range;

use crate::disk::SECTOR_BYTES;

const REGIONS: u64 = 16;
const RECORD_SECTORS_MAX: u64 = 64;
/// Beyond the records whose flush was reported are at most those that the flush that goes on is for, and those
/// that go on beside it.
const BEYOND_MAX: u64 = 2 * REGIONS;

/// What is known of a disk on which records were written, and machines killed.
#[derive(Debug)]
pub struct WriteLog {
    /// By sector: the number of the record that it has, plus one; 0 for a sector without.
    sectors: Vec<u64>,
    /// Records with a number below are flushed, or were not written when their machine was killed.
    records: u64,
}

impl WriteLog {
    /// An empty disk of that many sectors.
    ///
    /// # Panics
    ///
    /// When there are more than memory has room for.
    pub fn new(sectors: u64) -> Self {
        let sectors = usize::try_from(sectors).expect("a small disk");
        Self {
            sectors: vec![0; sectors],
            records: 0,
        }
    }

    /// The number of the next record, for the guest's `log.from`.
    pub fn next(&self) -> u64 {
        self.records
    }

    /// Compares `image`, the bytes of the disk, with what the guest was told: records below `flushed` are
    /// there. Each sector has the last of them that covers it, or a later one that was under way; what a
    /// machine left behind stays. Takes over what is there.
    ///
    /// # Errors
    ///
    /// The first sector that is not as it must be.
    ///
    /// # Panics
    ///
    /// When the image has another size.
    pub fn check(&mut self, image: &[u8], flushed: u64) -> Result<(), String> {
        assert_eq!(image.len(), self.sectors.len() * SECTOR_BYTES, "size");
        for number in self.records..flushed {
            for sector in self.place(number) {
                self.sectors[index(sector)] = number + 1;
            }
        }
        let end = flushed + BEYOND_MAX;
        for (sector, bytes) in (0..).zip(image.chunks_exact(SECTOR_BYTES)) {
            let certain = self.sectors[index(sector)];
            let there = u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes"));
            if there < certain || there > end {
                return Err(format!(
                    "sector {sector}: {} is flushed, and {} is there of {end}",
                    describe(certain),
                    describe(there)
                ));
            }
            let mistake = match there.checked_sub(1) {
                None => bytes.iter().any(|&byte| byte != 0),
                Some(number) => {
                    !self.place(number).contains(&sector) || bytes != content(number, sector)
                }
            };
            if mistake {
                return Err(format!(
                    "sector {sector} is damaged; it says that it is of {}",
                    describe(there)
                ));
            }
            self.sectors[index(sector)] = there;
        }
        self.records = end;
        Ok(())
    }

    /// The sectors of record `number`.
    fn place(&self, number: u64) -> Range<u64> {
        let region_sectors = self.sectors.len() as u64 / REGIONS;
        let random = mix(number);
        let sectors = 1 + random % RECORD_SECTORS_MAX;
        let offset = (random >> 32) % (region_sectors - sectors);
        let first = number % REGIONS * region_sectors + offset;
        first..first + sectors
    }
}

/// What the first word of a sector says.
fn describe(word: u64) -> String {
    match word.checked_sub(1) {
        None => "no record".to_owned(),
        Some(number) => format!("record {number}"),
    }
}

/// `sector` as record `number` writes it.
fn content(number: u64, sector: u64) -> Vec<u8> {
    (0..64)
        .flat_map(|index: u64| {
            let word = match index {
                0 => number + 1,
                1 => sector,
                _ => mix(number ^ sector << 20 ^ index << 56),
            };
            word.to_le_bytes()
        })
        .collect()
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

fn index(sector: u64) -> usize {
    usize::try_from(sector).expect("a small disk")
}

#[cfg(test)]
mod tests;
