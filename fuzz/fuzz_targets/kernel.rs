//! Files that are to be kernels: whatever is in one, it is loaded into a guest's memory or refused, in bounded
//! time and memory.
//!
//! An input is a file, whose last byte says who unpacks it and whether there is an initrd.
#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::PathBuf;

use boot::{GuestMemory, InitrdFile, KernelFile, Unpack, load};
use libfuzzer_sys::fuzz_target;
use vm_memory::GuestAddress;

const RAM_BYTES: usize = 64 << 20;

/// A file without a name, and a path by which it is opened again.
fn file(contents: &[u8]) -> (File, PathBuf) {
    // SAFETY: the name is a string that ends in a zero.
    let descriptor = unsafe { libc::memfd_create(c"kernel".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(descriptor >= 0, "no memfd");
    // SAFETY: the descriptor was just made, and is nobody else's.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(contents).expect("room for the file");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, path.into())
}

fuzz_target!(|bytes: &[u8]| {
    let (last, contents) = bytes.split_last().unwrap_or((&0, &[]));
    let (_open, path) = file(contents);
    let unpack = if last & 1 == 0 {
        Unpack::Auto
    } else {
        Unpack::Guest
    };
    let Ok(kernel) = KernelFile::open(&path, unpack) else {
        return;
    };
    let _format = kernel.format();
    let initrd = (last & 2 != 0).then(|| InitrdFile::open(&path));
    let initrd = initrd.and_then(Result::ok);
    let ranges = [(GuestAddress(0), RAM_BYTES)];
    let memory = GuestMemory::from_ranges(&ranges).expect("memory");
    let command_line = &"x".repeat(usize::from(*last) * 16);
    if let Err(error) = load(&memory, &kernel, initrd.as_ref(), command_line, None) {
        // What is said of it is part of it.
        let _text = error.to_string();
    }
});
