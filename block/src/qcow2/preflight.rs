//! What is looked at in the head of a qcow2 image (QEMU, docs/interop/qcow2.txt, "Header") before the library
//! sees it: the library ends the process on some heads, or takes all memory. An image comes from anywhere, and
//! is refused here instead.
//!
//! On the thread that opens the disk; nothing is written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::MAGIC;
use super::header::{
    CLUSTER_BITS, HEADER_LENGTH, L1_ENTRIES, L1_ENTRIES_MAX, REFCOUNT_TABLE,
    REFCOUNT_TABLE_BYTES_MAX, REFCOUNT_TABLE_CLUSTERS, VERSION,
};

/// The header extension with names of features, and bytes of each name.
const FEATURE_NAMES: u32 = 0x6803_f857;
const FEATURE_NAME_BYTES: u32 = 48;
/// The largest cluster, in which header and extensions are.
const CLUSTER_BITS_MAX: u32 = 21;
/// In an entry of the table of reference count blocks: where the block is.
const REFCOUNT_BLOCK_OFFSET: u64 = !0x1ff;

/// Refuses an image that the library does not live through. What it says itself of a wrong one is left to it.
pub(super) fn check(file: &File, writable: bool) -> io::Result<()> {
    if read::<4>(file, 0)? != MAGIC {
        return Ok(());
    }
    if u32_at(file, L1_ENTRIES)? > L1_ENTRIES_MAX {
        return refuse("its table of mappings is larger than any can be");
    }
    let cluster_bits = u32_at(file, CLUSTER_BITS)?;
    if cluster_bits > CLUSTER_BITS_MAX {
        return refuse("its clusters are larger than any can be");
    }
    let table_clusters = u32_at(file, REFCOUNT_TABLE_CLUSTERS)?;
    if u64::from(table_clusters).wrapping_shl(cluster_bits) > REFCOUNT_TABLE_BYTES_MAX {
        return refuse("its table of reference counts is larger than any can be");
    }
    if u32_at(file, VERSION)? > 2 {
        check_extensions(file, cluster_bits)?;
    }
    if writable && (table_clusters == 0 || !has_first_block(file)?) {
        // The library would make the missing block in the header's place, take that for none, and call itself
        // for another until the stack ends.
        return refuse(
            "its header has no reference count, so that it cannot be written to: repair it with \
             `cuddy image check --repair all`, or open it with readonly=on",
        );
    }
    Ok(())
}

/// Names of features are to be whole.
fn check_extensions(file: &File, cluster_bits: u32) -> io::Result<()> {
    let end = 1_u64.wrapping_shl(cluster_bits);
    let mut at = u64::from(u32_at(file, HEADER_LENGTH)?);
    // Ends: each extension has at least eight bytes, and all are in one cluster.
    while at < end {
        let kind = u32_at(file, at)?;
        let length = u32_at(file, at.saturating_add(4))?;
        match kind {
            0 => break,
            FEATURE_NAMES if !length.is_multiple_of(FEATURE_NAME_BYTES) => {
                return refuse("a name of a feature in its header is cut off");
            }
            _ => {}
        }
        let padded = u64::from(length).next_multiple_of(8);
        at = at.saturating_add(8).saturating_add(padded);
    }
    Ok(())
}

/// Whether there are reference counts for the first clusters, of which the header is one.
fn has_first_block(file: &File) -> io::Result<bool> {
    let table = u64::from_be_bytes(read(file, REFCOUNT_TABLE)?);
    // A table that begins where no file has a byte has no entries.
    if i64::try_from(table).is_err() {
        return Ok(false);
    }
    let entry = u64::from_be_bytes(read(file, table)?);
    Ok(entry & REFCOUNT_BLOCK_OFFSET != 0)
}

fn u32_at(file: &File, at: u64) -> io::Result<u32> {
    read(file, at).map(u32::from_be_bytes)
}

/// Bytes of the file; zeros where it has ended, as the library has it.
fn read<const N: usize>(file: &File, at: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let place = at.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        match file.read_at(rest, place) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn refuse(why: &'static str) -> io::Result<()> {
    Err(io::Error::other(why))
}

#[cfg(test)]
mod tests;
