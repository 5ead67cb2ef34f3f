//! Guests that break the rules of virtio: the device breaks, the machine does not, and a reset mends it.

use std::ffi::OsString;

use cuddy_tests::{Finished, MachineBuilder, disk, network};

/// What a whole run of offences may say on standard error: more would be a guest filling the log.
const LINES_MAX: usize = 25;

const TESTS: [&str; 4] = [
    "hostile-chains",
    "hostile-rings",
    "hostile-registers",
    "hostile-order",
];

fn on_each_transport(test: &str) -> [(&str, &str); 2] {
    [(test, "pci"), (test, "mmio")]
}

fn quiet(finished: &Finished) {
    assert!(finished.error_lines() <= LINES_MAX, "{finished}");
    let errors = String::from_utf8_lossy(&finished.errors);
    assert!(!errors.contains("panicked"), "{finished}");
}

#[test]
fn entropy_device_survives() {
    for (test, transport) in TESTS.into_iter().flat_map(on_each_transport) {
        let machine = MachineBuilder::suite(test)
            .option("target=rng")
            .argument("--transport", transport);
        quiet(&machine.pass());
    }
}

#[test]
fn block_device_survives_and_other_sectors_are_untouched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = disk::prepare(directory.path(), 2048);
    let before = std::fs::read(&path).expect("the image");
    let mut argument = OsString::from("path=");
    argument.push(&path);
    let tests = TESTS.into_iter().chain(["hostile-blk"]);
    for (test, transport) in tests.flat_map(on_each_transport) {
        let finished = MachineBuilder::suite(test)
            .option("target=blk")
            .argument("--transport", transport)
            .argument("--disk", &argument)
            .pass();
        quiet(&finished);
    }
    let after = std::fs::read(&path).expect("the image");
    assert_eq!(after.len(), before.len());
    for number in (0..2048).filter(|number| *number != 1000) {
        let place = number * disk::SECTOR_BYTES..(number + 1) * disk::SECTOR_BYTES;
        assert!(before[place.clone()] == after[place], "sector {number}");
    }
}

/// Attacks a queue of the network device while packets keep coming.
fn attack_network(target: &str) {
    network::enter_namespace();
    network::create_tap("tap0");
    network::configure("tap0");
    network::start_chatter();
    for (test, transport) in TESTS.into_iter().flat_map(on_each_transport) {
        let finished = MachineBuilder::suite(test)
            .option(&format!("target={target}"))
            .argument("--transport", transport)
            .argument("--net", "tap=tap0")
            .pass();
        quiet(&finished);
    }
}

#[test]
fn transmit_queue_survives() {
    attack_network("net-tx");
}

#[test]
fn receive_queue_survives() {
    attack_network("net-rx");
}
