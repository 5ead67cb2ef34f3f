//! Devices that come and go, through the library: a guest that serves a slot's registers by itself says on
//! its console what it waits for.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cuddy_tests::{MachineBuilder, disk, guests, network};
use vmm::config::{Action, ByteSize, DiskConfig, MachineConfig, MemoryConfig, NetConfig};
use vmm::console::Console;
use vmm::{Control, DeviceId, Hotplug, HotplugDevice, HotplugError, Outcome, Session, StopReason};

/// Long enough for every step on a busy host.
const DEADLINE: Duration = Duration::from_secs(60);
/// Too short for a guest that does not answer.
const SHORT: Duration = Duration::from_millis(300);
const SECTORS: u64 = 64;

/// The guest's console.
#[derive(Debug, Default, Clone)]
struct Output(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        drop(text);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    /// Waits for a line, `times` times.
    fn wait(&self, line: &str, times: usize) {
        let end = Instant::now() + DEADLINE;
        let mut text = self.0.0.lock().unwrap();
        loop {
            let so_far = String::from_utf8_lossy(&text).into_owned();
            if so_far.lines().filter(|found| *found == line).count() >= times {
                return;
            }
            assert!(!so_far.contains("FAIL"), "{so_far}");
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no line '{line}': {so_far}");
            text = self.0.1.wait_timeout(text, left).unwrap().0;
        }
    }
}

struct Machine {
    output: Output,
    hotplug: Hotplug,
    control: Control,
    thread: JoinHandle<Outcome>,
    directory: tempfile::TempDir,
}

impl Machine {
    fn start(tests: &str, change: impl FnOnce(&mut MachineConfig)) -> Self {
        let mut config = MachineConfig {
            kernel: Some(guests::path(guests::SUITE)),
            cmdline: Some(format!("test={tests}")),
            memory: MemoryConfig::with_size(ByteSize(64 << 20)),
            hotplug_slots: 2,
            ..MachineConfig::default()
        };
        change(&mut config);
        let output = Output::default();
        let console = Console::from_parts(None, Box::new(output.clone())).unwrap();
        let session = Session::open(config, console).unwrap();
        let directory = tempfile::tempdir().unwrap();
        disk::prepare(directory.path(), SECTORS);
        Self {
            output,
            hotplug: session.hotplug(),
            control: session.control(),
            thread: std::thread::spawn(move || session.run().unwrap()),
            directory,
        }
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    fn disk(&self) -> HotplugDevice {
        DiskConfig::new(self.image()).into()
    }

    /// What came of it, unless the guest had something to say.
    fn expect<T>(&self, result: Result<T, HotplugError>) -> T {
        result.unwrap_or_else(|error| {
            let text = self.output.0.0.lock().unwrap();
            panic!("{error}: {}", String::from_utf8_lossy(&text))
        })
    }

    fn end(self) {
        assert_eq!(self.thread.join().unwrap(), Outcome::PowerOff);
        self.output.wait("DONE", 1);
    }
}

/// Waits for a device until nobody else does.
fn detach_alone(hotplug: &Hotplug, id: DeviceId) -> Result<(), HotplugError> {
    loop {
        match hotplug.detach(id, DEADLINE) {
            Err(HotplugError::BeingDetached(_)) => std::thread::yield_now(),
            other => return other,
        }
    }
}

fn sector(image: &Path, number: usize) -> Vec<u8> {
    std::fs::read(image).unwrap()[number * 512..][..512].to_vec()
}

/// Attaches a disk and detaches it, `rounds` times.
fn rounds(machine: &Machine, rounds: usize) {
    for round in 0..rounds {
        machine.output.wait(&format!("hotplug: empty {round}"), 1);
        let id = machine.expect(machine.hotplug.attach(&machine.disk()));
        machine.output.wait(&format!("hotplug: driven {round}"), 1);
        machine.expect(machine.hotplug.detach(id, DEADLINE));
        assert!(matches!(
            machine.hotplug.detach(id, DEADLINE),
            Err(HotplugError::NotAttached(gone)) if gone == id
        ));
        let number = u64::try_from(round).unwrap();
        let written = disk::written_sector(number);
        assert_eq!(sector(&machine.image(), round), written, "round {round}");
    }
    machine.output.wait("hotplug: empty", 1);
}

#[test]
fn ports_have_buses_and_windows() {
    for slots in ["0", "1", "30"] {
        MachineBuilder::suite("hotplug-ports,rng")
            .option(&format!("hotplug.slots={slots}"))
            .argument("--hotplug-slots", slots)
            .pass();
    }
    MachineBuilder::suite("hotplug-ports,rng")
        .option("hotplug.slots=3")
        .argument("--hotplug-slots", "3")
        .memory("5G")
        .pass();
}

#[test]
fn a_disk_comes_and_goes_ten_times() {
    let machine = Machine::start("hotplug", |_| {});
    rounds(&machine, 10);
    machine.end();
}

#[test]
fn a_port_without_messages_uses_its_pin() {
    for irqchip in [
        vmm::config::IrqchipMode::Split,
        vmm::config::IrqchipMode::Kernel,
    ] {
        let machine = Machine::start("hotplug hotplug.signal=pin hotplug.rounds=3", |config| {
            config.irqchip = irqchip;
        });
        rounds(&machine, 3);
        machine.end();
    }
}

#[test]
fn a_disk_goes_in_the_midst_of_requests() {
    let machine = Machine::start("hotplug-load", |_| {});
    rounds(&machine, 10);
    machine.end();
}

#[test]
fn a_guest_may_keep_its_disk() {
    let machine = Machine::start("hotplug-refuse", |_| {});
    machine.output.wait("hotplug: empty 0", 1);
    let id = machine.expect(machine.hotplug.attach(&machine.disk()));
    machine.output.wait("hotplug: driven 0", 1);
    assert!(matches!(
        machine.hotplug.detach(id, SHORT),
        Err(HotplugError::NotReleased(kept)) if kept == id
    ));
    machine.output.wait("hotplug: driven 1", 1);
    machine.expect(machine.hotplug.detach(id, DEADLINE));
    machine.end();
}

#[test]
fn slots_are_few_and_images_are_locked() {
    let machine = Machine::start("nothing end=halt", |_| {});
    let lacking = DiskConfig::new("/nonexistent");
    let error = machine.hotplug.attach(&lacking.into()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
    let mut bad = DiskConfig::new(machine.image());
    bad.queues = Some(0);
    let error = machine.hotplug.attach(&bad.into()).unwrap_err();
    assert!(matches!(error, HotplugError::Configuration(_)), "{error}");

    let first = machine.expect(machine.hotplug.attach(&machine.disk()));
    let handle = machine.expect(machine.hotplug.disk(first)).unwrap();
    handle.grow(2 * SECTORS * 512).unwrap();
    assert_eq!(std::fs::metadata(machine.image()).unwrap().len(), 65_536);
    drop(handle);
    // The image is the first disk's alone.
    let error = machine.hotplug.attach(&machine.disk()).unwrap_err();
    assert!(matches!(error, HotplugError::Configuration(_)), "{error}");
    let other = machine.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let other = disk::prepare(&other, SECTORS);
    let mut shared = DiskConfig::new(other);
    shared.readonly = true;
    shared.lock = false;
    let shared = HotplugDevice::from(shared);
    let second = machine.hotplug.attach(&shared).unwrap();
    assert_ne!(first, second);
    assert!(matches!(
        machine.hotplug.attach(&shared),
        Err(HotplugError::NoSlot { slots: 2 })
    ));
    // The guest does not answer, and does not say that they may go.
    for id in [first, second] {
        let error = machine.hotplug.detach(id, SHORT).unwrap_err();
        assert!(matches!(error, HotplugError::NotReleased(_)), "{error}");
    }
    // Only one may wait for a device.
    let hotplug = machine.hotplug.clone();
    let waiting = std::thread::spawn(move || detach_alone(&hotplug, first));
    let busy = loop {
        match machine.hotplug.detach(first, Duration::ZERO) {
            Err(HotplugError::NotReleased(_)) => std::thread::yield_now(),
            other => break other,
        }
    };
    assert!(matches!(busy, Err(HotplugError::BeingDetached(_))));
    machine.control.stop(StopReason::User);
    assert!(matches!(waiting.join().unwrap(), Err(HotplugError::Ended)));
    machine.thread.join().unwrap();
    let ended = machine.hotplug.attach(&shared);
    assert!(matches!(ended, Err(HotplugError::Ended)));
}

/// Detaches `id` from a guest that is asked for it and gone before it answers.
fn detach_by_reset(machine: &Machine, id: DeviceId) {
    let hotplug = machine.hotplug.clone();
    let waiting = std::thread::spawn(move || detach_alone(&hotplug, id));
    loop {
        match machine.hotplug.detach(id, Duration::ZERO) {
            Err(HotplugError::NotReleased(_)) => std::thread::yield_now(),
            Err(HotplugError::BeingDetached(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    machine.control.reset();
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_restart_takes_away_what_was_asked_for() {
    let machine = Machine::start("rng end=halt", |_| {});
    machine.output.wait("DONE", 1);
    let id = machine.expect(machine.hotplug.attach(&machine.disk()));
    detach_by_reset(&machine, id);
    machine.output.wait("DONE", 2);
    machine.control.stop(StopReason::User);
    machine.thread.join().unwrap();
}

#[test]
fn a_disk_is_there_from_the_start_of_the_next_guest() {
    let machine = Machine::start("hotplug-start", |config| config.on_reboot = Action::Restart);
    machine.output.wait("hotplug: empty 0", 1);
    let id = machine.expect(machine.hotplug.attach(&machine.disk()));
    machine.output.wait("hotplug: driven 0", 1);
    machine.expect(machine.hotplug.detach(id, DEADLINE));
    let image = machine.image();
    assert_eq!(sector(&image, 0), disk::written_sector(0));
    machine.end();
}

#[test]
fn a_network_interface_comes_and_goes() {
    network::enter_namespace();
    network::create_tap("tap0");
    let machine = Machine::start("nothing end=halt", |_| {});
    let net = |tap: &str| {
        let config = NetConfig {
            tap: tap.to_owned(),
            create: false,
            mac: None,
            mtu: Some(1400),
        };
        HotplugDevice::from(config)
    };
    let lacking = machine.hotplug.attach(&net("tap1")).unwrap_err();
    assert!(lacking.to_string().starts_with("net: "), "{lacking}");
    let id = machine.expect(machine.hotplug.attach(&net("tap0")));
    assert!(machine.expect(machine.hotplug.disk(id)).is_none());
    let taken = machine.hotplug.attach(&net("tap0")).unwrap_err();
    assert!(taken.to_string().starts_with("net: "), "{taken}");
    detach_by_reset(&machine, id);
    // What it was made of is free.
    machine.expect(machine.hotplug.attach(&net("tap0")));
    machine.control.stop(StopReason::User);
    machine.thread.join().unwrap();
}

#[test]
fn a_machine_without_slots_attaches_nothing() {
    let machine = Machine::start("nothing end=halt", |config| config.hotplug_slots = 0);
    let error = machine.hotplug.attach(&machine.disk()).unwrap_err();
    assert!(
        matches!(error, HotplugError::NoSlot { slots: 0 }),
        "{error}"
    );
    machine.control.stop(StopReason::User);
    machine.thread.join().unwrap();
}
