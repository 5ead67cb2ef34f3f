//! Disks: sectors in, completions out.
//!
//! A [`Disk`] is an open image, raw or qcow2, or a block device of the host, with its size and geometry.
//! It gives [`Engine`]s, which carry out [`Operation`]s: through io_uring, by threads, or at once. Nothing
//! here knows who asks: a virtio device, a test or another kind of controller.
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
mod executor;
mod host;
pub mod image;
mod iopoll;
mod lock;
mod qcow2;
mod rate_limit;
mod request;
mod transfer;

pub use buffer::IoBuffer;
pub use disk::{CacheMode, Disk, DiskOptions, ImageFormat, Topology};
pub use engine::{Engine, EngineKind};
pub use error::{IoError, OpenError, ResizeError};
pub use iopoll::{IoPoll, PollRefused};
pub use rate_limit::{Rate, RateLimit, RateLimiter};
pub use request::{Completion, Operation};

/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
