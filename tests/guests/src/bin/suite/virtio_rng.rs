//! The entropy device.

use runtime::dma::DmaBuffer;
use runtime::interrupts::count;
use runtime::report::Test;
use runtime::time::{SECONDS, wait_until};
use runtime::virtio::entropy::EntropyDevice;
use runtime::virtio::{Device, Layout, device_id, feature, status};
use runtime::{Machine, lapic, privileged};

pub const TESTS: &[(&str, Test)] = &[
    ("rng", entropy),
    ("rng-interrupt", interrupt),
    ("rng-broken-start", broken_start),
];

/// Buffers of all sizes get random bytes and nothing else is written.
fn entropy(machine: &Machine) {
    let device = Device::first(machine, device_id::ENTROPY);
    for (wanted, layout) in [
        (0, Layout::Chain),
        (
            feature::INDIRECT_DESC | feature::EVENT_IDX,
            Layout::Indirect,
        ),
    ] {
        let mut entropy = EntropyDevice::start(device, wanted);
        for length in [1, 7, 64, 4096, 65_537] {
            let guarded = DmaBuffer::allocate(length + 64, 1);
            guarded.fill(0x77);
            let data = guarded.slice(32, length);
            let written = entropy.fill(layout, data);
            assert!(
                (1..=length).contains(&written),
                "{written} of {length} bytes"
            );
            let before = (0..32).all(|offset| guarded.read_u8(offset) == 0x77);
            let after = (32 + written..length + 64).all(|offset| guarded.read_u8(offset) == 0x77);
            assert!(
                before && after,
                "bytes outside of the {written} are written"
            );
            if written >= 64 {
                looks_random(data.slice(0, written));
            }
        }
        let (first, second) = (DmaBuffer::allocate(32, 1), DmaBuffer::allocate(32, 1));
        entropy.fill(layout, first);
        entropy.fill(layout, second);
        assert!((0..32).any(|offset| first.read_u8(offset) != second.read_u8(offset)));
        device.reset();
    }
}

/// No byte value has more than its share: an eighth of them, for 64 bytes or more.
fn looks_random(data: DmaBuffer) {
    let mut counts = [0u32; 256];
    for offset in 0..data.len() {
        counts[usize::from(data.read_u8(offset))] += 1;
    }
    assert!(
        counts.iter().all(|count| *count as usize <= data.len() / 8),
        "{} bytes are not random",
        data.len()
    );
}

/// Each completion interrupts once.
fn interrupt(machine: &Machine) {
    let device = Device::first(machine, device_id::ENTROPY);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    let mut entropy = EntropyDevice::start(device, 0);
    let data = DmaBuffer::allocate(64, 1);
    for round in 1..=10 {
        entropy.fill(Layout::Chain, data);
        assert!(
            wait_until(5 * SECONDS, || count(device.vector) >= round),
            "{} interrupts of {round}",
            count(device.vector)
        );
        let expected = device.used_buffer_status();
        assert_eq!(device.take_interrupt_status(), expected, "interrupt status");
    }
    assert_eq!(count(device.vector), 10, "interrupts");
    privileged::interrupts_off();
}

/// A device that cannot even start tells its driver so.
fn broken_start(machine: &Machine) {
    let device = Device::first(machine, device_id::ENTROPY);
    lapic::enable();
    device.route_interrupt(machine);
    privileged::interrupts_on();
    device.negotiate(0);
    // There is no memory.
    device.write_queue(0, 8, [1 << 50; 3]);
    device.set_status(0xf);
    assert!(
        wait_until(5 * SECONDS, || device.status() & status::NEEDS_RESET != 0),
        "status {:#x}",
        device.status()
    );
    assert!(
        wait_until(5 * SECONDS, || count(device.vector) == 1),
        "no interrupt"
    );
    device.reset();
    privileged::interrupts_off();
}
