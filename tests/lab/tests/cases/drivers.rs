//! What a distribution does with a machine's functions: it lists them, takes their drivers away and gives them
//! back, and puts the machine to sleep. One machine for all of it, for its boot takes the longest.

use std::fs::File;

use cuddy_lab::Machine;

use crate::hotplug::BROKEN;
use crate::pci::COMPLAINTS;
use crate::setup::{self, COMMAND_LIMIT, TRANSFER_LIMIT};
use crate::tap::Tap;
use crate::{lspci, modules, sleep, tools, transfer};

const DISK_MIB: u64 = 4;
const HOST: &str = "10.82.0.1";
const NET_BYTES: usize = 512 << 10;

#[test]
fn functions_are_decoded_drivers_reload_and_the_machine_sleeps() {
    let _tap = Tap::new("cuddy-drv0", "10.82.0.1/24");
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image)
        .unwrap()
        .set_len(DISK_MIB << 20)
        .unwrap();
    let mut options = setup::elf();
    options.disks = vec![format!("path={}", image.display()), tools::disk()];
    options.nets = vec!["tap=cuddy-drv0".to_owned()];
    options.more = vec!["--hotplug-slots", "2"];
    let mut machine = setup::start(&options);

    tools::mount(&mut machine, "vdb");
    lspci::check(&mut machine, &image);
    tools::unmount(&mut machine);

    let mut work = Work::new(&mut machine);
    // The second time is after what the first one left behind.
    for _ in 0..2 {
        modules::take_away(&mut machine);
        modules::give_back(&mut machine);
    }
    work.goes_on(&mut machine);
    sleep::check(&mut machine);
    work.goes_on(&mut machine);
    setup::power_off(machine);
}

/// What has to be the same after all that is done to the drivers.
struct Work {
    sum: String,
}

impl Work {
    fn new(machine: &mut Machine) -> Self {
        let fill = "dd if=/dev/urandom of=/dev/vda bs=1M conv=fsync 2> /dev/null; \
                    sha256sum < /dev/vda";
        let sum = machine.run(fill, TRANSFER_LIMIT).unwrap();
        let mut work = Self { sum };
        work.goes_on(machine);
        work
    }

    /// The disk has what was written, the network carries data, and the kernel does not complain.
    fn goes_on(&mut self, machine: &mut Machine) {
        let sum = machine.run("sha256sum < /dev/vda", TRANSFER_LIMIT).unwrap();
        assert_eq!(sum, self.sum);
        let rewrite = "dd if=/dev/vda of=/tmp/disk bs=1M 2> /dev/null; \
                       dd if=/tmp/disk of=/dev/vda bs=64k oflag=direct 2> /dev/null; \
                       rm /tmp/disk";
        machine.run(rewrite, TRANSFER_LIMIT).unwrap();
        let address = "ip addr replace 10.82.0.2/24 dev eth0 && ip link set eth0 up";
        machine.run(address, COMMAND_LIMIT).unwrap();
        transfer::both_ways(&mut machine.console, HOST, NET_BYTES);
        let complaints = format!("dmesg | grep -E \"{COMPLAINTS}|{BROKEN}\" || true");
        assert_eq!(machine.run(&complaints, COMMAND_LIMIT).unwrap(), "");
    }
}
