//! The tiny kernel under `cuddy`, straight on this host's /dev/kvm, whatever kind it is.
//!
//! `cargo xtask test` builds the kernel and runs these; `cargo xtask guest-kernel --test` runs these alone.

mod boot;
mod disk;
mod net;
mod setup;
#[path = "../cases/tap.rs"]
mod tap;
#[path = "../cases/transfer.rs"]
mod transfer;
