//! What every device does on its transports and with each kind of ring, whatever it is.

use super::driver_queue::{INDIRECT, NEXT, WRITE};
use super::packed_queue;
use super::{Driver, HOLE, Kind, RecordedDoorbells, register, status};
use crate::{VirtioDevice, feature};
use bus::Doorbell;

/// A device type under test.
pub struct Subject<'a> {
    /// Makes the device.
    pub make: &'a dyn Fn() -> Box<dyn VirtioDevice>,
    /// Device-specific features to negotiate.
    pub features: u64,
    /// A queue on which the device looks at chains as soon as its doorbell rings.
    pub eager_queue: u16,
    /// Does something useful with the started device, and checks that it worked.
    pub exercise: &'a dyn Fn(&mut Driver),
}

const RING: u64 = feature::RING_INDIRECT_DESC | feature::RING_EVENT_IDX;
const QUEUE_SIZE: u16 = 16;

/// Runs the whole suite, on each transport with each kind of ring.
pub fn run(subject: &Subject<'_>) {
    for kind in [Kind::Mmio, Kind::Pci] {
        for packed in [false, true] {
            run_on(&On {
                subject,
                kind,
                packed,
            });
        }
    }
}

/// A device type on a transport.
struct On<'a> {
    subject: &'a Subject<'a>,
    kind: Kind,
    packed: bool,
}

impl On<'_> {
    /// The features to negotiate, that of the ring among them.
    fn features(&self) -> u64 {
        let ring = if self.packed { feature::RING_PACKED } else { 0 };
        self.subject.features | ring
    }
}

impl<'a> std::ops::Deref for On<'a> {
    type Target = Subject<'a>;

    fn deref(&self) -> &Self::Target {
        self.subject
    }
}

fn run_on(subject: &On<'_>) {
    registers_and_features(subject);
    set_up_in_the_wrong_order(subject);
    configuration_space_has_bounds(subject);
    starts_stops_and_starts(subject);
    serves_with_each_kind_of_event_suppression(subject);
    pauses_and_resumes(subject);
    survives_a_reset_in_flight(subject);
    lives_without_queues(subject);
    breaks_on_bad_rings(subject);
    if subject.packed {
        breaks_on_hostile_packed_chains(subject);
    } else {
        breaks_on_hostile_chains(subject);
    }
}

fn driver(subject: &On<'_>) -> Driver {
    Driver::on(subject.kind, (subject.make)())
}

fn registers_and_features(subject: &On<'_>) {
    let mut driver = driver(subject);
    let device_type = driver.transport.device_type();
    assert_eq!(device_type, (subject.make)().device_type());
    let offered = driver.offered_features();
    assert_eq!(offered & feature::RING, feature::RING);
    assert_eq!(offered & subject.features, subject.features);
    for select in [2, 3, u32::MAX] {
        driver.write(register::DEVICE_FEATURES_SEL, select);
        assert_eq!(driver.read(register::DEVICE_FEATURES), 0);
    }
    if subject.kind == Kind::Mmio {
        assert_eq!(driver.read(register::MAGIC_VALUE), 0x7472_6976);
        assert_eq!(driver.read(register::VERSION), 2);
        assert_eq!(driver.read(register::SHM_LEN_LOW), u32::MAX);
    }
    for bit in 0..64 {
        let feature = 1 << bit;
        assert_eq!(
            driver.negotiate(feature),
            offered & feature != 0,
            "feature {bit}"
        );
    }
    assert!(driver.negotiate(offered));
}

fn set_up_in_the_wrong_order(subject: &On<'_>) {
    let mut driver = driver(subject);
    let accepted = status::ACKNOWLEDGE | status::DRIVER;
    // Nothing follows from a DRIVER that has not acknowledged.
    driver.write(register::STATUS, status::DRIVER | status::DRIVER_OK);
    assert_eq!(driver.status(), 0);
    // Without VERSION_1 there are no features.
    driver.write(register::STATUS, accepted);
    driver.write(register::STATUS, accepted | status::FEATURES_OK);
    assert_eq!(driver.status(), accepted);
    // DRIVER_OK needs FEATURES_OK.
    driver.write(register::STATUS, accepted | status::DRIVER_OK);
    assert_eq!(driver.status(), accepted);
    // Queues are not configured before FEATURES_OK.
    driver.write(register::QUEUE_READY, 1);
    assert_eq!(driver.read(register::QUEUE_READY), 0);
    // A feature from bit 64 on is refused.
    driver.write(register::DRIVER_FEATURES_SEL, 1);
    driver.write(register::DRIVER_FEATURES, 1);
    driver.write(register::DRIVER_FEATURES_SEL, 2);
    driver.write(register::DRIVER_FEATURES, 1);
    driver.write(register::STATUS, accepted | status::FEATURES_OK);
    assert_eq!(driver.status(), accepted);

    // Features after FEATURES_OK change nothing; bits are not cleared one by one.
    assert!(driver.negotiate(0));
    driver.write(register::DRIVER_FEATURES_SEL, 0);
    driver.write(register::DRIVER_FEATURES, u32::MAX);
    driver.write(register::STATUS, accepted);
    assert_eq!(driver.status(), accepted | status::FEATURES_OK);
    // A queue that is ready keeps its size, and a queue that is not there takes nothing.
    driver.add_queue(QUEUE_SIZE);
    driver.write(register::QUEUE_SIZE, 3);
    driver.write(register::QUEUE_SEL, 1000);
    assert_eq!(driver.read(register::QUEUE_SIZE_MAX), 0);
    driver.write(register::QUEUE_READY, 1);
    assert_eq!(driver.read(register::QUEUE_READY), 0);
    assert!(driver.doorbells.registered.lock().unwrap().is_empty());
    driver.driver_ok();
    assert_eq!(
        driver.status(),
        accepted | status::FEATURES_OK | status::DRIVER_OK
    );
    // After DRIVER_OK a queue stays as it is.
    driver.write(register::QUEUE_SEL, 0);
    driver.write(register::QUEUE_READY, 0);
    assert_eq!(driver.read(register::QUEUE_READY), 1);
    driver.reset();
    driver.write(register::QUEUE_SEL, 0);
    assert_eq!(driver.read(register::QUEUE_READY), 0);

    // A guest that gave up does not start the device.
    assert!(driver.negotiate(0));
    let given_up = driver.status() | status::FAILED;
    driver.write(register::STATUS, given_up);
    driver.driver_ok();
    assert_eq!(driver.status() & status::DRIVER_OK, 0);
}

fn configuration_space_has_bounds(subject: &On<'_>) {
    use bus::MmioDevice as _;
    let mut driver = driver(subject);
    let offsets = (0..0x200).chain([0x1000, u64::from(u32::MAX), u64::MAX - 0x200]);
    assert!(driver.negotiate(subject.features()));
    for offset in offsets {
        for length in [1, 2, 4, 8] {
            let mut data = [0xff; 8];
            let at = register::CONFIG.saturating_add(offset);
            driver.transport.read(at, &mut data[..length]);
            assert_eq!(data[length..], [0xff; 8][length..]);
            if offset >= 0x100 {
                assert_eq!(data[..length], [0; 8][..length], "offset {offset:#x}");
            }
            let _effect = driver.transport.write(at, &[0xff; 8][..length]);
        }
    }
    if subject.kind == Kind::Mmio {
        // Registers take accesses of 32 bits alone.
        for length in [1, 2, 3, 8] {
            let mut data = [0xee; 8];
            driver.transport.read(register::STATUS, &mut data[..length]);
            assert_eq!(data, [0xee; 8]);
            let _effect = driver.transport.write(register::STATUS, &data[..length]);
        }
    }
    assert_ne!(driver.status() & status::FEATURES_OK, 0);
}

fn starts_stops_and_starts(subject: &On<'_>) {
    let mut driver = driver(subject);
    for _ in 0..3 {
        driver.start(subject.features() | RING, QUEUE_SIZE);
        let rung: Vec<Doorbell> = driver.doorbells.registered.lock().unwrap().clone();
        let expected: Vec<Doorbell> = (0..u32::try_from(driver.queues.len()).unwrap())
            .map(|index| driver.transport.doorbell(index))
            .collect();
        assert_eq!(rung, expected);
        (subject.exercise)(&mut driver);
        driver.reset();
        assert!(driver.doorbells.registered.lock().unwrap().is_empty());
    }
    // A reset of a device that is not started, and a second one.
    driver.reset();
    driver.reset();
    let mut device = (subject.make)();
    assert!(device.stop().is_empty());
    assert!(device.stop().is_empty());
}

fn serves_with_each_kind_of_event_suppression(subject: &On<'_>) {
    for ring in [0, feature::RING_EVENT_IDX, feature::RING_INDIRECT_DESC] {
        let mut driver = driver(subject);
        driver.start(subject.features() | ring, QUEUE_SIZE);
        for _ in 0..40 {
            (subject.exercise)(&mut driver);
        }
        assert_eq!(driver.status() & status::NEEDS_RESET, 0);
    }
    // A host that takes no doorbells.
    let refusing = RecordedDoorbells {
        refuses: true,
        ..RecordedDoorbells::default()
    };
    let mut driver = Driver::build(subject.kind, (subject.make)(), super::memory(), refusing);
    driver.start(subject.features(), QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

fn pauses_and_resumes(subject: &On<'_>) {
    let mut driver = driver(subject);
    driver.transport.pause();
    driver.transport.resume();
    driver.start(subject.features() | RING, QUEUE_SIZE);
    for _ in 0..3 {
        (subject.exercise)(&mut driver);
        driver.transport.pause();
        driver.transport.pause();
        driver.transport.resume();
        driver.transport.resume();
        (subject.exercise)(&mut driver);
    }
    assert_eq!(driver.status() & status::NEEDS_RESET, 0);
    driver.transport.pause();
    drop(driver);
}

fn survives_a_reset_in_flight(subject: &On<'_>) {
    let mut driver = driver(subject);
    for _ in 0..20 {
        driver.start(subject.features() | RING, QUEUE_SIZE);
        // Chains that a device may reject, but that break no rule.
        let memory = driver.allocate(0x1000);
        for _ in 0..4 {
            driver.submit(
                subject.eager_queue,
                &[
                    super::Buffer::Readable(memory, 16),
                    super::Buffer::Writable(memory + 64, 513),
                ],
            );
        }
        driver.reset();
    }
    driver.start(subject.features() | RING, QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

fn lives_without_queues(subject: &On<'_>) {
    let mut driver = driver(subject);
    assert!(driver.negotiate(subject.features()));
    driver.driver_ok();
    for queue in [0, 1, u16::MAX] {
        driver.kick(queue);
    }
    driver.reset();
    driver.start(subject.features(), QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

fn breaks_on_bad_rings(subject: &On<'_>) {
    let mut driver = driver(subject);
    // A split ring has a power of two; a packed one wants less of its driver's area.
    let (part, own) = if subject.packed {
        (register::QUEUE_DRIVER_LOW, 0x1002)
    } else {
        (register::QUEUE_SIZE, 3)
    };
    let cases: [(u64, u32); 8] = [
        (register::QUEUE_SIZE, 0),
        (part, own),
        (register::QUEUE_SIZE, 0x1_0000),
        (register::QUEUE_SIZE, 0x8000),
        (register::QUEUE_DESC_LOW, 0x1008),
        (register::QUEUE_DESC_LOW + 4, u32::MAX),
        (register::QUEUE_DRIVER_LOW, u32::try_from(HOLE).unwrap()),
        (register::QUEUE_DEVICE_LOW, u32::MAX - 3),
    ];
    for (register, value) in cases {
        assert!(driver.negotiate(subject.features()));
        driver.add_queue_with(QUEUE_SIZE, |driver| driver.write(register, value));
        driver.driver_ok();
        assert_ne!(
            driver.status() & status::NEEDS_RESET,
            0,
            "{register:#x} = {value:#x}"
        );
        assert_eq!(driver.wait_interrupt(), 2);
        driver.kick(0);
    }
    driver.start(subject.features(), QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

/// A descriptor: address, length, flags, next.
type Descriptor = (u64, u32, u16, u16);

fn breaks_on_hostile_chains(subject: &On<'_>) {
    let mut driver = driver(subject);
    let here = 0x8_0000;
    let chains: [(&str, &[Descriptor]); 15] = [
        ("a loop", &[(here, 16, NEXT, 1), (here, 16, NEXT, 0)]),
        ("its own next", &[(here, 16, NEXT, 0)]),
        ("next out of range", &[(here, 16, NEXT, QUEUE_SIZE)]),
        ("a hole", &[(HOLE, 16, 0, 0)]),
        ("half in a hole", &[(HOLE - 8, 16, 0, 0)]),
        ("the end of addresses", &[(u64::MAX - 4, 16, 0, 0)]),
        ("too long", &[(here, u32::MAX, WRITE, 0)]),
        ("empty", &[(here, 0, 0, 0)]),
        (
            "readable after writable",
            &[(here, 16, NEXT | WRITE, 1), (here, 16, 0, 0)],
        ),
        ("an indirect table in a hole", &[(HOLE, 16, INDIRECT, 0)]),
        ("an empty indirect table", &[(here, 0, INDIRECT, 0)]),
        ("half an indirect entry", &[(here, 24, INDIRECT, 0)]),
        (
            "indirect with a next",
            &[(here, 16, INDIRECT | NEXT, 1), (here, 16, 0, 0)],
        ),
        (
            "nested indirect tables",
            &[(here, 32, INDIRECT, 0), (here, 16, 0, 0)],
        ),
        (
            "an indirect table at the end of addresses",
            &[(u64::MAX - 8, 32, INDIRECT, 0)],
        ),
    ];
    for (what, descriptors) in chains {
        driver.start(subject.features() | RING, QUEUE_SIZE);
        let queue = usize::from(subject.eager_queue);
        // The indirect table, for those that have one: an indirect descriptor and a next out of range.
        driver.queues[queue]
            .split()
            .write_descriptor_at(here, 0, (here, 16, INDIRECT, 0));
        for (index, &descriptor) in (0..).zip(descriptors) {
            driver.queues[queue]
                .split()
                .write_descriptor(index, descriptor);
        }
        driver.queues[queue].split().offer(0);
        expect_broken(&mut driver, subject, what);
    }
    driver.start(subject.features() | RING, QUEUE_SIZE);
    driver.queues[usize::from(subject.eager_queue)]
        .split()
        .offer(QUEUE_SIZE);
    expect_broken(&mut driver, subject, "head out of range");
    driver.start(subject.features() | RING, QUEUE_SIZE);
    driver.queues[usize::from(subject.eager_queue)]
        .split()
        .set_available_index(QUEUE_SIZE + 1);
    expect_broken(&mut driver, subject, "the available index jumps");
    driver.start(subject.features() | RING, QUEUE_SIZE);
    driver.queues[usize::from(subject.eager_queue)]
        .split()
        .set_available_index(u16::MAX);
    expect_broken(&mut driver, subject, "the available index goes back");
    driver.start(subject.features(), QUEUE_SIZE);
    driver.queues[usize::from(subject.eager_queue)]
        .split()
        .write_descriptor(0, (here, 16, INDIRECT, 0));
    driver.queues[usize::from(subject.eager_queue)]
        .split()
        .offer(0);
    expect_broken(&mut driver, subject, "indirect without its feature");
    driver.start(subject.features() | RING, QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

/// A descriptor of a packed ring: address, length, flags.
type Element = (u64, u32, u16);

fn breaks_on_hostile_packed_chains(subject: &On<'_>) {
    let mut driver = driver(subject);
    let here = 0x8_0000;
    let queue = usize::from(subject.eager_queue);
    let chains: [(&str, &[Element]); 14] = [
        (
            "a list without end",
            &[(here, 16, NEXT); QUEUE_SIZE as usize],
        ),
        ("a hole", &[(HOLE, 16, 0)]),
        ("half in a hole", &[(HOLE - 8, 16, 0)]),
        ("the end of addresses", &[(u64::MAX - 4, 16, 0)]),
        ("too long", &[(here, u32::MAX, WRITE)]),
        ("empty", &[(here, 0, 0)]),
        (
            "readable after writable",
            &[(here, 16, NEXT | WRITE), (here, 16, 0)],
        ),
        ("an indirect table in a hole", &[(HOLE, 16, INDIRECT)]),
        ("an empty indirect table", &[(here, 0, INDIRECT)]),
        ("half an indirect entry", &[(here, 24, INDIRECT)]),
        (
            "indirect with a next",
            &[(here, 16, INDIRECT | NEXT), (here, 16, 0)],
        ),
        (
            "indirect behind another",
            &[(here, 16, NEXT), (here, 16, INDIRECT)],
        ),
        (
            "an indirect table that is longer than any list",
            &[(here, 0xffff_fff0, INDIRECT)],
        ),
        (
            "an indirect table at the end of addresses",
            &[(u64::MAX - 8, 32, INDIRECT)],
        ),
    ];
    for (what, descriptors) in chains {
        driver.start(subject.features() | RING, QUEUE_SIZE);
        let ring = driver.queues[queue].packed();
        // The first one last, which makes the list available (2.8.6): the device may look at any time.
        let numbered: Vec<_> = (0..).zip(descriptors).collect();
        for (index, &(address, length, flags)) in numbered.into_iter().rev() {
            // The indirect table, for those that have one: elements that break no rule.
            ring.write_descriptor_at(here, index, (here, 16, 0, 0));
            let flags = flags | packed_queue::AVAILABLE;
            ring.write_descriptor(index, (address, length, u16::MAX, flags));
        }
        expect_broken(&mut driver, subject, what);
    }
    driver.start(subject.features(), QUEUE_SIZE);
    driver.queues[queue].packed().offer(&[(here, 16, INDIRECT)]);
    expect_broken(&mut driver, subject, "indirect without its feature");
    driver.start(subject.features() | RING, QUEUE_SIZE);
    (subject.exercise)(&mut driver);
}

/// The device breaks, says so, and does not touch the ring any more.
fn expect_broken(driver: &mut Driver, subject: &On<'_>, what: &str) {
    driver.kick(subject.eager_queue);
    driver.wait_broken();
    assert_ne!(driver.wait_interrupt() & 2, 0, "{what}");
    let queue = usize::from(subject.eager_queue);
    assert!(!driver.queues[queue].has_used(), "{what}");
    driver.kick(subject.eager_queue);
    driver.transport.pause();
    driver.transport.resume();
    assert_ne!(driver.status() & status::NEEDS_RESET, 0, "{what}");
    assert!(!driver.queues[queue].has_used(), "{what}");
}
