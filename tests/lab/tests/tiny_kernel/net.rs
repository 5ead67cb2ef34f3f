//! A network interface over TAP: ping in both directions, and a transfer whose checksum is compared.

use std::process::Command;

use cuddy_lab::{Cache, busybox};

use crate::setup::{self, COMMAND_LIMIT};
use crate::tap::Tap;
use crate::transfer;

const BYTES: usize = 256 << 10;
const HOST: &str = "10.79.0.1";
const GUEST: &str = "10.79.0.2";

/// Gives this thread a network of its own, which the programs that it starts share.
fn own_network() {
    // SAFETY: unshare takes no pointers; it concerns this thread alone.
    let status = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn pings_and_transfers_both_ways() {
    own_network();
    let _tap = Tap::new("tap0", &format!("{HOST}/24"));
    let mut options = setup::options(1);
    options.nets = vec!["tap=tap0".to_owned()];
    let mut machine = setup::start(&options);
    let up = format!("ip addr add {GUEST}/24 dev eth0 && ip link set eth0 up");
    machine.run(&up, COMMAND_LIMIT).unwrap();
    machine
        .run(&format!("ping -c 3 -W 10 {HOST}"), COMMAND_LIMIT)
        .unwrap();
    let ping = Command::new(busybox(&Cache::open().unwrap()).unwrap())
        .args(["ping", "-q", "-c", "3", "-W", "10", GUEST])
        .output()
        .unwrap();
    assert!(ping.status.success(), "{ping:?}");

    transfer::both_ways(&mut machine.console, HOST, BYTES);
    setup::power_off(machine);
}
