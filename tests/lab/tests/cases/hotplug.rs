//! Hot-plug under a stock kernel: its own driver for PCI Express slots, with a machine in this process.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuddy_lab::{Assets, Console};
use vmm::config::{Action, ByteSize, DiskConfig, MachineConfig, MemoryConfig};
use vmm::{Hotplug, HotplugDevice, Outcome, Session};

use crate::pci::COMPLAINTS;
use crate::setup::{BOOT_LIMIT, TRANSFER_LIMIT};

/// For a guest to give a device up: five seconds for somebody at the machine, and its work.
pub(crate) const DETACH_LIMIT: Duration = Duration::from_secs(60);
/// Words of a kernel that broke.
pub(crate) const BROKEN: &str = "BUG:|Oops|WARNING:|Call Trace|hung task|I/O error, dev vda.*WRITE";

/// A machine in this process, with a handle to its slots.
pub(crate) struct Machine {
    pub(crate) console: Console,
    pub(crate) hotplug: Hotplug,
    thread: JoinHandle<Outcome>,
}

impl Machine {
    /// Starts a machine with two empty slots and waits for its shell.
    pub(crate) fn start() -> Self {
        let assets = Assets::get().unwrap();
        let config = MachineConfig {
            kernel: Some(assets.vmlinux),
            initrd: Some(assets.initrd),
            cmdline: Some("console=ttyS0 quiet".to_owned()),
            memory: MemoryConfig::with_size(ByteSize(512 << 20)),
            hotplug_slots: 2,
            on_reboot: Action::Restart,
            ..MachineConfig::default()
        };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let input = Box::new(theirs.try_clone().unwrap());
        let serial = vmm::console::Console::from_parts(Some(input), Box::new(theirs)).unwrap();
        let session = Session::open(config, serial).unwrap();
        let hotplug = session.hotplug();
        let thread = std::thread::spawn(move || session.run().unwrap());
        let mut console = Console::new(ours.try_clone().unwrap(), ours);
        console.expect("~ # ", BOOT_LIMIT).unwrap();
        let mut machine = Self {
            console,
            hotplug,
            thread,
        };
        machine.prepare();
        machine
    }

    /// Long lines are typed once: each character of them costs the guest several exits.
    fn prepare(&mut self) {
        self.run(&format!(
            "complaints() {{ dmesg | grep -E \"{COMPLAINTS}|{BROKEN}\"; true; }}"
        ));
        self.run("there() { until test -b /dev/$1; do sleep 0.1; done; }");
    }

    /// Runs a command in the guest's shell, which has to succeed.
    pub(crate) fn run(&mut self, command: &str) -> String {
        // Guest, machine and test share the lab's one processor, and some commands wait for a disk.
        self.console.run(command, TRANSFER_LIMIT).unwrap()
    }

    /// No complaints in the kernel's log.
    pub(crate) fn is_content(&mut self) {
        assert_eq!(self.run("complaints"), "");
    }

    /// Turns the guest's power off.
    pub(crate) fn power_off(mut self) {
        self.console.send("poweroff -f\n").unwrap();
        assert_eq!(self.thread.join().unwrap(), Outcome::PowerOff);
    }
}

fn disk(image: &std::path::Path) -> HotplugDevice {
    DiskConfig::new(image).into()
}

#[test]
fn a_disk_is_plugged_and_unplugged_by_pciehp() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    let mut machine = Machine::start();
    assert_eq!(machine.run("ls /sys/bus/pci/slots | xargs"), "1 2");
    assert_eq!(
        machine.run("cd /sys/bus/pci/devices && echo *"),
        "0000:00:00.0 0000:00:01.0 0000:00:02.0 0000:00:03.0"
    );
    machine.run("dmesg | grep 'pcieport 0000:00:02.0: pciehp: Slot #1 AttnBtn+ PwrCtrl- MRL- AttnInd+ PwrInd+'");
    machine.is_content();
    for round in 0..3 {
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let started = Instant::now();
        let id = machine.hotplug.attach(&disk(&image)).unwrap();
        machine.run("there vda");
        println!("round {round}: there after {:?}", started.elapsed());
        assert_eq!(machine.run("cat /sys/bus/pci/slots/1/power"), "1");
        // A message for each queue, also behind a port.
        machine.run("grep 'PCI-MSI.*virtio1-req' /proc/interrupts");
        machine.run("yes cuddy | dd of=/dev/vda bs=64k count=16 iflag=fullblock conv=fsync");
        let written = std::fs::read(&image).unwrap();
        assert!(written.starts_with(b"cuddy\ncuddy\n") && written.len() == 1 << 20);
        let started = Instant::now();
        machine.hotplug.detach(id, DETACH_LIMIT).unwrap();
        println!("round {round}: gone after {:?}", started.elapsed());
        machine.run("! test -e /dev/vda");
        assert_eq!(
            machine.run("cd /sys/bus/pci/devices && echo *"),
            "0000:00:00.0 0000:00:01.0 0000:00:02.0 0000:00:03.0"
        );
        machine.is_content();
    }
    // Two at once, the second slot as well.
    let second = folder.path().join("second.img");
    File::create(&second).unwrap().set_len(1 << 20).unwrap();
    let ids = [&image, &second].map(|image| machine.hotplug.attach(&disk(image)).unwrap());
    machine.run("there vda; there vdb");
    machine.run("cat /dev/vda /dev/vdb | wc -c");
    for id in ids {
        machine.hotplug.detach(id, DETACH_LIMIT).unwrap();
    }
    machine.is_content();
    machine.power_off();
}

#[test]
fn a_disk_is_unplugged_under_load() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let mut machine = Machine::start();
    for round in 0..2 {
        let id = machine.hotplug.attach(&disk(&image)).unwrap();
        machine.run("there vda");
        machine.run(
            "for reader in 1 2 3 4; do \
             (while dd if=/dev/vda of=/dev/null bs=16k iflag=direct; do :; done) 2>/dev/null & done",
        );
        machine.run("sleep 1; read -r reads rest < /sys/block/vda/stat && test $reads -gt 0");
        machine.hotplug.detach(id, DETACH_LIMIT).unwrap();
        machine.run("wait; ! test -e /dev/vda");
        println!("round {round}: gone");
        machine.is_content();
    }
    machine.power_off();
}

#[test]
fn a_disk_stays_when_the_request_is_withdrawn_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let mut machine = Machine::start();
    let id = machine.hotplug.attach(&disk(&image)).unwrap();
    machine.run("there vda");
    let short = Duration::from_secs(1);
    machine.hotplug.detach(id, short).unwrap_err();
    // The button was pressed a second time: the guest keeps the disk.
    machine.run("sleep 7; test -b /dev/vda");
    machine.is_content();

    machine.console.send("reboot -f\n").unwrap();
    let restarting = "reboot: Restarting system";
    machine.console.expect(restarting, TRANSFER_LIMIT).unwrap();
    machine.console.expect("~ # ", BOOT_LIMIT).unwrap();
    machine.prepare();
    machine.run("cat /dev/vda | wc -c");
    machine.is_content();

    // Somebody in the guest gives it up, takes it back, and gives it up for good.
    let power = "/sys/bus/pci/slots/1/power";
    machine.run(&format!("echo 0 > {power}; ! test -e /dev/vda"));
    machine.run(&format!("echo 1 > {power}; there vda"));
    machine.run("cat /dev/vda | wc -c");
    machine.run(&format!("echo 0 > {power}; ! test -e /dev/vda"));
    machine.hotplug.detach(id, Duration::ZERO).unwrap();
    machine.is_content();
    let id = machine.hotplug.attach(&disk(&image)).unwrap();
    machine.run("there vda");
    machine.hotplug.detach(id, DETACH_LIMIT).unwrap();
    machine.power_off();
}
