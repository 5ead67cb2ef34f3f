//! The freestanding guests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo_build;

/// The guest with all tests, chosen by `test=` on its command line.
pub const SUITE: &str = "suite";
/// The shortest guest: a byte to port 0x80, one to COM1, and a reset by the keyboard controller.
pub const FIRST: &str = "first";

/// The ELF image of the guest `name`, built if need be.
///
/// # Panics
///
/// When the guests cannot be built.
pub fn path(name: &str) -> PathBuf {
    cargo_build::guests().join(name)
}

/// Copies the guest `name` to `directory` without its PVH note, so that it is entered by the 64-bit Linux
/// boot protocol.
///
/// # Panics
///
/// When the image cannot be read, has no note, or the copy cannot be written.
pub fn without_pvh_note(name: &str, directory: &Path) -> PathBuf {
    const PT_NULL: u32 = 0;
    const PT_NOTE: u32 = 4;
    let mut image = fs::read(path(name)).expect("the guest's image");
    // ELF-64: e_phoff, e_phentsize, e_phnum of the header; p_type is a program header's first word.
    let table = number(&image, 32, 8);
    let (entry_bytes, entries) = (number(&image, 54, 2), number(&image, 56, 2));
    let note = (0..entries)
        .map(|entry| table + entry * entry_bytes)
        .find(|offset| number(&image, *offset, 4) == PT_NOTE as usize)
        .expect("a note in the guest's image");
    image[note..note + 4].copy_from_slice(&PT_NULL.to_le_bytes());
    let copy = directory.join(name);
    fs::write(&copy, image).expect("the copy is written");
    copy
}

/// The little-endian number of `bytes` bytes at `offset`.
fn number(image: &[u8], offset: usize, bytes: usize) -> usize {
    image[offset..offset + bytes]
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}
