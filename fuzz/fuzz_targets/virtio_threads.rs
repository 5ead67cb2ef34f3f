//! As `virtio`, with the threads that devices have, and with each of a disk's engines: what runs at the same time
//! as the guest, at a hundredth of the speed.
#![no_main]

use cuddy_fuzz::Input;
use cuddy_fuzz::virtio::{Device, Guest, Pace};
use libfuzzer_sys::fuzz_target;

const STEPS_MAX: usize = 60;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let kind = input.byte();
    let mut guest = Guest::new(kind, Device::new(kind, Pace::Threads), Pace::Threads);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.finish();
});
