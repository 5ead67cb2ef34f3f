//! The devices, one file each.

pub mod net;
pub mod rng;
