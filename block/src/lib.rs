//! Disks: sectors in, completions out.
//!
//! A [`Disk`] is an open image, a raw file or a block device of the host, with its size and geometry.
//! It gives [`Engine`]s, which carry out [`Operation`]s. Nothing here knows who asks: a virtio device, a
//! test or another kind of controller.
//!
//! A sector has [`SECTOR_BYTES`] bytes, whatever the host's device has.
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

mod bounce;
mod buffer;
mod disk;
mod engine;
mod error;
mod host;
mod lock;

pub use buffer::IoBuffer;
pub use disk::{CacheMode, Disk, DiskOptions, Topology};
pub use engine::{Completion, Engine, Operation};
pub use error::{IoError, OpenError};

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
