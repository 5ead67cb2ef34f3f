//! virtio-net under a stock driver: 64 MiB through TCP in both directions, with checksums.

use crate::setup::{self, COMMAND_LIMIT};
use crate::tap::Tap;
use crate::transfer;

const BYTES: usize = 64 << 20;
const HOST: &str = "10.78.0.1";

#[test]
fn tap_64_mib_both_ways() {
    let _tap = Tap::new("cuddy-net0", "10.78.0.1/24");
    let mut options = setup::elf();
    options.cpus = 2;
    options.nets = vec!["tap=cuddy-net0".to_owned()];
    let mut machine = setup::start(&options);
    machine
        .run(
            "ip addr add 10.78.0.2/24 dev eth0 && ip link set eth0 up",
            COMMAND_LIMIT,
        )
        .unwrap();
    machine
        .run(&format!("ping -c 3 {HOST}"), COMMAND_LIMIT)
        .unwrap();

    transfer::both_ways(&mut machine.console, HOST, BYTES);
    setup::power_off(machine);
}
