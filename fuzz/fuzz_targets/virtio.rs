//! A disk, a network interface and an entropy device behind virtio-mmio or virtio-pci, on the root bus or in a
//! slot, driven by a guest that mostly knows how, and then does not: registers, rings of both kinds, buffers,
//! pauses, coming and going. Nothing panics, no access hangs, and a device whose driver starts over serves it.
//!
//! The devices have no threads here: `virtio_threads` is the same with them, and with the disk's other engines.
//! An input is a choice of device and transport, then a list of actions; see [`Guest::step`].
#![no_main]

use cuddy_fuzz::Input;
use cuddy_fuzz::virtio::{Device, Guest, Pace};
use libfuzzer_sys::fuzz_target;

const STEPS_MAX: usize = 60;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let kind = input.byte();
    let mut guest = Guest::new(kind, Device::new(kind, Pace::Driven), Pace::Driven);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.finish();
});
