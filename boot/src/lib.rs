//! Boot: kernel, initrd, command line and the tables that a kernel wants, as bytes into guest memory; entry
//! state out. No ioctl is made here.
//!
//! # What is started, and how
//!
//! | file | unpacked by | entered by |
//! |---|---|---|
//! | ELF, with the PVH note | | PVH |
//! | ELF, without it | | Linux's 64-bit boot protocol, at `e_entry` |
//! | bzImage | us ([`Unpack::Auto`]) | as the ELF image in it |
//! | bzImage, when its payload is no ELF image or packed in an unknown way | the guest | Linux's 64-bit boot protocol, at its own entry |
//! | bzImage | the guest ([`Unpack::Guest`]) | Linux's 64-bit boot protocol, at its own entry |
//!
//! Files are recognised by their contents, never by their names. A bzImage whose payload is damaged is
//! refused: the guest would fail as well, without a word.
//!
//! # Trust
//!
//! A kernel's file is the user's, so its code is not judged; but whatever is in it, nothing here panics,
//! loops without end or allocates more than the file or the guest's memory justify. A file that changes
//! while it is loaded makes an error, or a kernel that does not run.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod acpi;

mod bzimage;
mod command_line;
mod elf;
mod foreign;
mod image;
mod initrd;
mod kernel;
mod load;
mod parallel;
mod payload;
mod placement;
mod start_info;
#[cfg(test)]
mod test_images;
mod zero_page;

pub use bzimage::BzImageError;
pub use command_line::{CommandLineError, DEFAULT_CMDLINE};
pub use elf::{ElfError, MachineName, What};
pub use initrd::{InitrdError, InitrdFile, InitrdProblem};
pub use kernel::{KernelError, KernelFile, KernelFormat, KernelProblem, Unpack};
pub use load::{Entry, LoadError, load};
pub use payload::{Compression, PayloadError};
pub use placement::PlacementError;

/// Guest memory, without a record of what was written.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
