use super::*;
use crate::feature as ring_feature;
use crate::testing::conformance::{self, Subject};
use crate::testing::{Buffer, Driver, HOLE, SECOND_REGION, register, status};
use block::image::CreateOptions;
use block::{CacheMode, DiskOptions, EngineKind, ImageFormat, Rate, RateLimit};
use proptest::prelude::*;
use std::fs;
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

const SECTORS: u64 = 64;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const UNTOUCHED: u8 = 0xaa;

fn bits(bits: &[u32]) -> u64 {
    bits.iter().fold(0, |all, &bit| all | feature(bit))
}

/// A disk image of [`SECTORS`] sectors, each filled with its number.
struct Image {
    directory: TempDir,
    readonly: bool,
    cache: CacheMode,
    device_options: BlkOptions,
}

impl Image {
    fn new() -> Self {
        // On a file system with O_DIRECT, which the one for temporary files may not have.
        let program = std::env::current_exe().unwrap();
        let directory = TempDir::new_in(program.parent().unwrap()).unwrap();
        let image = Self {
            directory,
            readonly: false,
            cache: CacheMode::Writeback,
            device_options: BlkOptions::new("disk0"),
        };
        let sectors = (0..SECTORS).flat_map(|sector| [u8::try_from(sector).unwrap(); 512]);
        fs::write(image.path(), sectors.collect::<Vec<u8>>()).unwrap();
        image
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("disk.img")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn device(&self) -> Box<dyn VirtioDevice> {
        let options = DiskOptions {
            readonly: self.readonly,
            cache: self.cache,
            // The suite has several devices at once.
            lock: false,
            ..DiskOptions::new(self.path())
        };
        let options_of_device = BlkOptions {
            serial: "a serial number".parse().unwrap(),
            ..self.device_options.clone()
        };
        Box::new(Blk::new(Disk::open(&options).unwrap(), options_of_device))
    }

    fn driver(&self, features: u64) -> Driver {
        let mut driver = Driver::new(self.device());
        driver.start(features, 16);
        driver
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(sector.to_le_bytes());
    bytes
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// A request with `data` for the device, and room for `room` bytes from it. Returns the status and
/// what it wrote.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[u8], room: usize) -> (u8, Vec<u8>) {
    let header = driver.place(&header(kind, sector));
    let mut buffers = vec![Buffer::Readable(header, 16)];
    if !data.is_empty() {
        let length = u32::try_from(data.len()).unwrap();
        buffers.push(Buffer::Readable(driver.place(data), length));
    }
    let answer = driver.place(&vec![UNTOUCHED; room + 1]);
    if room > 0 {
        buffers.push(Buffer::Writable(answer, u32::try_from(room).unwrap()));
    }
    let status = answer + u64::try_from(room).unwrap();
    buffers.push(Buffer::Writable(status, 1));
    let written = driver.request(0, &buffers);
    assert_eq!(written, u32::try_from(room).unwrap() + 1);
    (driver.fetch(status, 1)[0], driver.fetch(answer, room))
}

fn exercise(driver: &mut Driver) {
    let (status, data) = request(driver, IN, 2, &[], 1024);
    assert_eq!(status, 0);
    assert!(data[..512].iter().all(|&byte| byte == 2));
    assert!(data[512..].iter().all(|&byte| byte == 3));
}

#[test]
fn conforms() {
    for (cache, readonly, engine, queues) in [
        (CacheMode::Writeback, false, EngineKind::IoUring, 1),
        (CacheMode::None, false, EngineKind::IoUring, 1),
        (CacheMode::Writeback, true, EngineKind::Sync, 1),
        (CacheMode::None, false, EngineKind::Threads, 2),
    ] {
        let mut image = Image::new();
        image.cache = cache;
        image.readonly = readonly;
        image.device_options.engine = engine;
        image.device_options.queues = queues;
        conformance::run(&Subject {
            make: &|| image.device(),
            features: bits(&[2, 6, 9, 10]),
            eager_queue: 0,
            exercise: &exercise,
        });
    }
}

#[test]
fn the_configuration_space_describes_the_disk() {
    let image = Image::new();
    let mut driver = Driver::new(image.device());
    let number = |driver: &mut Driver, offset| {
        u32::from_le_bytes(driver.config(offset, 4).try_into().unwrap())
    };
    assert_eq!(driver.config(0, 8), SECTORS.to_le_bytes());
    assert_eq!(number(&mut driver, 8), 256 << 10);
    assert_eq!(number(&mut driver, 12), 254);
    assert_eq!(number(&mut driver, 20), 512);
    assert_eq!(driver.config(34, 2), [1, 0]);
    assert_eq!(number(&mut driver, 36), config::DISCARD_MAX_SECTORS);
    assert_eq!(number(&mut driver, 40), 1);
    assert!(number(&mut driver, 44) > 0);
    assert_eq!(number(&mut driver, 48), config::WRITE_ZEROES_MAX_SECTORS);
    assert_eq!(number(&mut driver, 52), 1);
    assert_eq!(driver.config(56, 8), [1, 0, 0, 0, 0, 0, 0, 0]);
    let offered = driver.offered_features();
    assert_eq!(offered & bits(&[5]), 0);
    assert_eq!(offered & bits(&[9, 11, 13, 14]), bits(&[9, 11, 13, 14]));

    let mut readonly = Image::new();
    readonly.readonly = true;
    let mut driver = Driver::new(readonly.device());
    let offered = driver.offered_features();
    assert_eq!(offered & bits(&[5, 11, 13, 14]), bits(&[5]));
}

#[test]
fn sectors_are_read_written_and_flushed() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let mut image = Image::new();
        image.cache = cache;
        let mut driver = image.driver(bits(&[9]));
        assert_eq!(request(&mut driver, OUT, 7, &[0x55; 1024], 0).0, 0);
        assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
        let (status, data) = request(&mut driver, IN, 6, &[], 4 * 512);
        assert_eq!(status, 0);
        assert_eq!(data[..512], [6; 512]);
        assert_eq!(data[512..1536], [0x55; 1024]);
        assert_eq!(data[1536..], [9; 512]);
        assert_eq!(image.content()[7 * 512..9 * 512], [0x55; 1024]);
    }
}

/// What a queue has under way when it breaks must not hold another up, nor the reset behind it.
#[test]
fn a_queue_that_breaks_lets_go_of_the_clusters_it_was_reading() {
    let mut image = Image::new();
    image.cache = CacheMode::None;
    image.device_options.queues = 2;
    let create = CreateOptions {
        format: ImageFormat::Qcow2,
        size_bytes: Some(1 << 20),
        ..CreateOptions::default()
    };
    block::image::create(&image.directory.path().join("disk.qcow2"), &create).unwrap();
    let options = DiskOptions {
        cache: image.cache,
        format: ImageFormat::Qcow2,
        ..DiskOptions::new(image.directory.path().join("disk.qcow2"))
    };
    let disk = Disk::open(&options).unwrap();
    let device = Blk::new(disk, image.device_options.clone());
    let mut driver = Driver::new(Box::new(device));
    driver.start(bits(&[9, 12, 13]), 16);
    assert_eq!(request(&mut driver, OUT, 0, &[0x55; 4096], 0).0, 0);
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    // A read in place, and behind it what no queue lives through.
    let header = driver.place(&header(IN, 0));
    let status = driver.allocate(1);
    driver.queues[1].add(&[
        Buffer::Readable(header, 16),
        Buffer::Writable(0x8_0000, 4096),
        Buffer::Writable(status, 1),
    ]);
    driver.queues[1].split().offer(999);
    driver.kick(1);
    driver.wait_broken();
    let range = range(0, 128, 0);
    assert_eq!(request(&mut driver, DISCARD, 0, &range, 0).0, 0);
    driver.reset();
}

#[test]
fn nothing_beyond_the_capacity_is_touched() {
    let image = Image::new();
    let before = image.content();
    let mut driver = image.driver(bits(&[9, 13, 14]));
    for sector in [SECTORS - 1, SECTORS, u64::MAX / 512, u64::MAX - 1, u64::MAX] {
        assert_eq!(request(&mut driver, OUT, sector, &[1; 1024], 0).0, 1);
        let (status, data) = request(&mut driver, IN, sector, &[], 1024);
        assert_eq!((status, data), (1, vec![UNTOUCHED; 1024]));
        for kind in [DISCARD, WRITE_ZEROES] {
            let range = range(sector, 2, 0);
            assert_eq!(request(&mut driver, kind, 0, &range, 0).0, 1);
        }
    }
    assert_eq!(request(&mut driver, IN, 0, &[], 100).0, 1);
    assert_eq!(request(&mut driver, OUT, 0, &[1; 513], 0).0, 1);
    assert_eq!(image.content(), before);
}

#[test]
fn sectors_are_discarded_and_zeroed_within_the_announced_limits() {
    let image = Image::new();
    let mut driver = image.driver(bits(&[13, 14]));
    assert_eq!(
        request(&mut driver, WRITE_ZEROES, 0, &range(4, 8, 0), 0).0,
        0
    );
    assert_eq!(
        request(&mut driver, WRITE_ZEROES, 0, &range(20, 8, 1), 0).0,
        0
    );
    assert_eq!(request(&mut driver, DISCARD, 0, &range(32, 16, 0), 0).0, 0);
    let content = image.content();
    for (first, last) in [(4, 12), (20, 28), (32, 48)] {
        assert!(
            content[first * 512..last * 512]
                .iter()
                .all(|&byte| byte == 0)
        );
    }
    assert_eq!(content[12 * 512], 12);
    // More than one range, flags that mean nothing, too many sectors, half a range.
    let two = [range(0, 1, 0), range(2, 1, 0)].concat();
    let cases = [
        (DISCARD, two.clone(), 1),
        (WRITE_ZEROES, two, 1),
        (DISCARD, range(0, 1, 1), 2),
        (DISCARD, range(0, 1, 2), 2),
        (WRITE_ZEROES, range(0, 1, 2), 2),
        (DISCARD, range(0, u32::MAX, 0), 1),
        (WRITE_ZEROES, range(0, u32::MAX, 0), 1),
        (DISCARD, vec![0; 8], 1),
        (WRITE_ZEROES, Vec::new(), 1),
    ];
    for (kind, data, expected) in cases {
        assert_eq!(request(&mut driver, kind, 0, &data, 0).0, expected);
    }
    assert_eq!(image.content(), content);
    // Without the feature there is no such request.
    let mut driver = image.driver(0);
    for kind in [DISCARD, WRITE_ZEROES, 2, 14, u32::MAX] {
        assert_eq!(request(&mut driver, kind, 0, &range(0, 1, 0), 0).0, 2);
    }
}

#[test]
fn a_read_only_disk_refuses_changes() {
    let mut image = Image::new();
    image.readonly = true;
    let before = image.content();
    let mut driver = image.driver(bits(&[5, 9]));
    assert_eq!(request(&mut driver, OUT, 0, &[9; 512], 0).0, 1);
    assert_eq!(
        request(&mut driver, WRITE_ZEROES, 0, &range(0, 1, 0), 0).0,
        2
    );
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    exercise(&mut driver);
    assert_eq!(image.content(), before);
}

#[test]
fn the_serial_number_has_twenty_bytes() {
    let image = Image::new();
    let mut driver = image.driver(0);
    let (status, data) = request(&mut driver, GET_ID, 0, &[], 20);
    assert_eq!((status, &data[..]), (0, &b"a serial number\0\0\0\0\0"[..]));
    let (status, data) = request(&mut driver, GET_ID, 0, &[], 4);
    assert_eq!((status, &data[..]), (0, &b"a se"[..]));
    let (status, data) = request(&mut driver, GET_ID, 0, &[], 30);
    assert_eq!((status, data[20]), (0, UNTOUCHED));
    assert!("12345678901234567890".parse::<Serial>().is_ok());
    let error = "123456789012345678901".parse::<Serial>().unwrap_err();
    assert!(error.to_string().contains("21 bytes"));
}

#[test]
fn the_cache_mode_is_the_drivers_to_choose() {
    let image = Image::new();
    let mut driver = image.driver(bits(&[9, 11]));
    assert_eq!(driver.config(32, 1), [1]);
    let write = |driver: &mut Driver, value: u8| {
        use bus::MmioDevice as _;
        let _effect = driver.transport.write(register::CONFIG + 32, &[value]);
    };
    for (value, read) in [(0, 0), (7, 0), (1, 1), (0, 0)] {
        write(&mut driver, value);
        assert_eq!(driver.config(32, 1), [read]);
    }
    assert_eq!(request(&mut driver, OUT, 1, &[0x44; 512], 0).0, 0);
    driver.reset();
    assert_eq!(driver.config(32, 1), [1]);
    // A driver that cannot flush gets durable writes.
    driver.start(bits(&[11]), 16);
    assert_eq!(driver.config(32, 1), [0]);
    assert_eq!(request(&mut driver, OUT, 1, &[0x45; 512], 0).0, 0);
    assert_eq!(image.content()[512..1024], [0x45; 512]);
}

#[test]
fn what_is_cached_when_the_cache_is_turned_off_is_flushed_with_the_next_write() {
    let shared = Shared::new(RateLimit::default(), true);
    assert!(!shared.has_unflushed());
    shared.note_written();
    assert!(shared.has_unflushed());
    // A write that is acknowledged while a flush is under way is not covered by it.
    let begun_at = shared.begin_flush();
    shared.note_written();
    shared.note_flushed(begun_at);
    assert!(shared.has_unflushed());
    let (earlier, later) = (shared.begin_flush(), shared.begin_flush());
    shared.note_flushed(later);
    assert!(!shared.has_unflushed());
    shared.note_flushed(earlier);
    assert!(!shared.has_unflushed());

    let image = Image::new();
    let disk = Disk::open(&DiskOptions::new(image.path())).unwrap();
    let device = Blk::new(disk, BlkOptions::new("disk0"));
    let shared = Arc::clone(&device.shared);
    let mut driver = Driver::new(Box::new(device));
    driver.start(bits(&[9, 11]), 16);
    assert_eq!(request(&mut driver, OUT, 1, &[1; 512], 0).0, 0);
    assert!(shared.has_unflushed());
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    assert!(!shared.has_unflushed());
    assert_eq!(request(&mut driver, OUT, 1, &[2; 512], 0).0, 0);
    use bus::MmioDevice as _;
    let _effect = driver.transport.write(register::CONFIG + 32, &[0]);
    assert!(shared.has_unflushed());
    assert_eq!(request(&mut driver, OUT, 2, &[3; 512], 0).0, 0);
    assert!(!shared.has_unflushed());
    assert_eq!(request(&mut driver, OUT, 2, &[4; 512], 0).0, 0);
    assert!(!shared.has_unflushed());
}

#[test]
fn direct_sync_shows_no_cache() {
    let mut image = Image::new();
    image.cache = CacheMode::DirectSync;
    let mut driver = image.driver(bits(&[9, 11]));
    assert_eq!(driver.config(32, 1), [0]);
    assert_eq!(request(&mut driver, OUT, 1, &[0x44; 512], 0).0, 0);
    assert_eq!(image.content()[512..1024], [0x44; 512]);
}

/// Submits a read of `sector` to `queue` without ringing; returns where status and data go.
fn offer_read(driver: &mut Driver, queue: u16, sector: u64) -> u64 {
    let header = driver.place(&header(IN, sector));
    let data = driver.place(&[UNTOUCHED; 513]);
    driver.queues[usize::from(queue)]
        .add(&[Buffer::Readable(header, 16), Buffer::Writable(data, 513)]);
    data
}

#[test]
fn each_queue_is_served_on_its_own() {
    for engine in [EngineKind::IoUring, EngineKind::Threads, EngineKind::Sync] {
        let mut image = Image::new();
        image.device_options.queues = 4;
        image.device_options.engine = engine;
        image.cache = CacheMode::None;
        let mut driver = image.driver(bits(&[9, 12]) | ring_feature::RING_EVENT_IDX);
        assert_eq!(driver.queues.len(), 4);
        assert_eq!(driver.config(34, 2), [4, 0]);
        for _ in 0..3 {
            let mut expected = Vec::new();
            for sector in 0..20_u64 {
                let queue = u16::try_from(sector % 4).unwrap();
                let data = offer_read(&mut driver, queue, sector);
                expected.push((queue, sector, data));
                driver.kick(queue);
            }
            for &(queue, ..) in &expected {
                assert_eq!(driver.wait_used(queue).1, 513);
            }
            for (_, sector, data) in expected {
                let number = u8::try_from(sector).unwrap();
                assert_eq!(driver.fetch(data, 512), [number; 512]);
                assert_eq!(driver.fetch(data + 512, 1), [0]);
            }
            // All queues come back in their order.
            driver.transport.pause();
            driver.transport.resume();
        }
        // A driver that uses the first queue alone.
        assert!(driver.negotiate(bits(&[9])));
        driver.add_queue(16);
        driver.driver_ok();
        exercise(&mut driver);
    }
}

#[test]
fn more_requests_than_a_round_and_a_ring_has_are_served() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let mut image = Image::new();
        image.cache = cache;
        let mut driver = Driver::new(image.device());
        driver.start(ring_feature::RING_EVENT_IDX, 256);
        for round in 0..6 {
            let places: Vec<(u64, u64)> = (0..100)
                .map(|index| (index * 7 + round) % SECTORS)
                .map(|sector| (sector, offer_read(&mut driver, 0, sector)))
                .collect();
            driver.kick(0);
            for _ in &places {
                driver.wait_used(0);
            }
            for (sector, data) in places {
                let number = u8::try_from(sector).unwrap();
                assert_eq!(driver.fetch(data, 512), [number; 512]);
            }
        }
    }
}

#[test]
fn a_head_that_is_offered_again_and_again_is_served_as_often() {
    let mut image = Image::new();
    image.cache = CacheMode::None;
    let mut driver = image.driver(0);
    let header = driver.place(&header(IN, 3));
    let data = driver.place(&[UNTOUCHED; 513]);
    let head = driver.queues[0].add(&[Buffer::Readable(header, 16), Buffer::Writable(data, 513)]);
    for _ in 1..16 {
        driver.queues[0].split().offer(head);
    }
    driver.kick(0);
    for _ in 0..16 {
        assert_eq!(driver.wait_used(0), (u32::from(head), 513));
    }
    exercise(&mut driver);
}

#[test]
fn a_rate_limit_slows_requests_and_loses_none() {
    let mut image = Image::new();
    image.device_options.rate_limit = RateLimit {
        operations: Some(Rate {
            per_second: 200,
            burst: 2,
        }),
        bytes: None,
    };
    let mut driver = image.driver(ring_feature::RING_EVENT_IDX);
    let started = std::time::Instant::now();
    for sector in 0..7 {
        offer_read(&mut driver, 0, sector);
    }
    driver.kick(0);
    for _ in 0..7 {
        driver.wait_used(0);
    }
    // Five after the burst, 5 ms each.
    assert!(started.elapsed() >= std::time::Duration::from_millis(24));
    // A stop does not wait for those that wait.
    for sector in 0..7 {
        offer_read(&mut driver, 0, sector);
    }
    driver.kick(0);
    driver.transport.pause();
    driver.transport.resume();
    for _ in 0..7 {
        driver.wait_used(0);
    }
}

/// Counts what it is told.
#[derive(Debug, Default)]
struct Listener(std::sync::atomic::AtomicU32);

impl ErrorListener for Listener {
    fn request_failed(&self, device: &str) {
        assert_eq!(device, "disk0");
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_failed_request_waits_for_a_restart_where_that_is_wished() {
    for engine in [EngineKind::IoUring, EngineKind::Sync] {
        let listener = Arc::new(Listener::default());
        let mut image = Image::new();
        image.device_options.engine = engine;
        image.device_options.on_error = OnError::Stop(listener.clone());
        let mut driver = image.driver(bits(&[9]) | ring_feature::RING_EVENT_IDX);
        let file = fs::File::options().write(true).open(image.path()).unwrap();
        let content = image.content();
        // The host loses the second half of the disk.
        file.set_len(32 * 512).unwrap();
        let first = offer_read(&mut driver, 0, 40);
        let second = offer_read(&mut driver, 0, 41);
        let good = offer_read(&mut driver, 0, 2);
        driver.kick(0);
        // What does not fail is answered.
        driver.wait_used(0);
        assert_eq!(driver.fetch(good, 512), [2; 512]);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while listener.0.load(Ordering::SeqCst) == 0 && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        driver.transport.pause();
        driver.transport.resume();
        // Tried again, in vain.
        driver.transport.pause();
        assert_eq!(listener.0.load(Ordering::SeqCst), 2);
        fs::write(image.path(), &content).unwrap();
        driver.transport.resume();
        for _ in 0..2 {
            driver.wait_used(0);
        }
        assert_eq!(driver.fetch(first, 513)[510..], [40, 40, 0]);
        assert_eq!(driver.fetch(second, 513)[510..], [41, 41, 0]);
        // A reset drops what is kept.
        file.set_len(32 * 512).unwrap();
        offer_read(&mut driver, 0, 40);
        driver.kick(0);
        driver.transport.pause();
        driver.transport.resume();
        driver.reset();
        fs::write(image.path(), &content).unwrap();
        driver.start(bits(&[9]), 16);
        assert_eq!(driver.queues[0].split().used_index(), 0);
        exercise(&mut driver);
        assert_eq!(driver.queues[0].split().used_index(), 1);
    }
}

#[test]
fn errors_are_reported_or_ignored_as_wished() {
    for (on_error, expected) in [(OnError::Report, 1), (OnError::Ignore, 0)] {
        let mut image = Image::new();
        image.device_options.on_error = on_error;
        let mut driver = image.driver(0);
        let file = fs::File::options().write(true).open(image.path()).unwrap();
        file.set_len(32 * 512).unwrap();
        let (status, data) = request(&mut driver, IN, 40, &[], 512);
        assert_eq!((status, data), (expected, vec![UNTOUCHED; 512]));
        // What the driver itself got wrong is never a success.
        assert_eq!(request(&mut driver, IN, SECTORS, &[], 512).0, 1);
    }
}

#[test]
fn a_driver_hears_of_a_disk_that_has_grown() {
    let image = Image::new();
    let disk = Disk::open(&DiskOptions::new(image.path())).unwrap();
    let device = Blk::new(disk, BlkOptions::new("disk0"));
    let resizer = device.resizer();
    let mut driver = Driver::new(Box::new(device));
    driver.start(bits(&[9]), 16);
    assert_eq!(request(&mut driver, OUT, SECTORS, &[1; 512], 0).0, 1);
    while driver.interrupted() {}
    driver.read(register::INTERRUPT_STATUS);
    driver.write(register::INTERRUPT_ACK, 3);
    let generation = driver.read(register::CONFIG_GENERATION);
    resizer.grow((SECTORS + 8) * 512).unwrap();
    assert_eq!(driver.wait_interrupt(), 2);
    assert_ne!(driver.read(register::CONFIG_GENERATION), generation);
    assert_eq!(driver.config(0, 8), (SECTORS + 8).to_le_bytes());
    assert_eq!(request(&mut driver, OUT, SECTORS, &[1; 512], 0).0, 0);
    assert!(resizer.grow(SECTORS * 512).is_err());
    // While the machine is paused, nobody can be told.
    driver.transport.pause();
    while driver.interrupted() {}
    driver.write(register::INTERRUPT_ACK, 3);
    resizer.grow((SECTORS + 16) * 512).unwrap();
    assert!(!driver.interrupted());
    driver.transport.resume();
    assert_eq!(driver.wait_interrupt() & 2, 2);
    assert_eq!(driver.config(0, 8), (SECTORS + 16).to_le_bytes());
}

#[test]
fn a_short_header_is_refused_and_a_missing_status_breaks_the_device() {
    let image = Image::new();
    let mut driver = image.driver(0);
    let memory = driver.place(&[UNTOUCHED; 64]);
    assert_eq!(
        driver.request(
            0,
            &[
                Buffer::Readable(memory, 15),
                Buffer::Writable(memory + 32, 1)
            ]
        ),
        1
    );
    assert_eq!(driver.fetch(memory + 32, 1), [1]);
    driver.request(0, &[Buffer::Writable(memory + 33, 1)]);
    assert_eq!(driver.fetch(memory + 33, 1), [1]);
    driver.submit(0, &[Buffer::Readable(memory, 16)]);
    driver.wait_broken();
    driver.start(0, 16);
    exercise(&mut driver);
}

#[test]
fn a_request_that_leaves_memory_in_the_middle_breaks_the_device() {
    let image = Image::new();
    let mut driver = image.driver(ring_feature::RING_INDIRECT_DESC);
    let header = driver.place(&header(IN, 0));
    driver.submit(
        0,
        &[
            Buffer::Readable(header, 16),
            Buffer::Writable(HOLE - 512, 1024),
            Buffer::Writable(header + 32, 1),
        ],
    );
    driver.wait_broken();
    assert_eq!(driver.status() & status::NEEDS_RESET, status::NEEDS_RESET);
}

#[test]
fn a_request_longer_than_the_announced_limits_fails() {
    let image = Image::new();
    let disk = fs::File::options().write(true).open(image.path()).unwrap();
    disk.set_len(128 << 20).unwrap();
    let mut driver = Driver::new(image.device());
    driver.start(ring_feature::RING_INDIRECT_DESC, 16);
    // The same memory again and again, 64 MiB in all.
    let header = driver.place(&header(IN, 0));
    let mut buffers = vec![Buffer::Readable(header, 16)];
    buffers.extend([Buffer::Writable(SECOND_REGION, 1 << 20); 64]);
    buffers.push(Buffer::Writable(header + 32, 1));
    driver
        .memory
        .write_obj(UNTOUCHED, GuestAddress(SECOND_REGION))
        .unwrap();
    for (count, expected) in [(64, 1), (63, 0)] {
        let table = driver.allocate(16 * buffers.len());
        let mut some = buffers.clone();
        some.drain(1 + count..65);
        driver.queues[0].add_indirect(table, &some);
        driver.kick(0);
        driver.wait_used(0);
        assert_eq!(driver.fetch(header + 32, 1), [expected]);
        let first = driver.fetch(SECOND_REGION, 1)[0];
        assert_eq!(first, if expected == 0 { 0 } else { UNTOUCHED });
    }
}

#[test]
fn many_requests_in_one_ring_are_all_served() {
    let image = Image::new();
    let mut driver = image.driver(ring_feature::RING_EVENT_IDX);
    let mut tables = Vec::new();
    for sector in 0..5_u64 {
        let header = driver.place(&header(IN, sector));
        let data = driver.allocate(513);
        tables.push((sector, data));
        driver.queues[0].add(&[Buffer::Readable(header, 16), Buffer::Writable(data, 513)]);
    }
    driver.kick(0);
    // First the interrupt: a driver that has seen all used buffers by itself is not told of them.
    assert_ne!(driver.wait_interrupt() & 1, 0);
    for _ in 0..5 {
        assert_eq!(driver.wait_used(0).1, 513);
    }
    for (sector, data) in tables {
        assert_eq!(
            driver.fetch(data, 512),
            [u8::try_from(sector).unwrap(); 512]
        );
        assert_eq!(driver.fetch(data + 512, 1), [0]);
    }
}

/// Cuts `bytes` at random places into pieces for descriptors.
fn cut(length: usize, cuts: &[usize]) -> Vec<(usize, usize)> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % length.max(1)).collect();
    places.extend([0, length]);
    places.sort_unstable();
    places.dedup();
    places
        .windows(2)
        .map(|pair| (pair[0], pair[1] - pair[0]))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_framing_is_the_same_request(
        sector in 0..SECTORS - 2,
        is_write in any::<bool>(),
        readable_cuts in prop::collection::vec(0_usize..1100, 0..6),
        writable_cuts in prop::collection::vec(0_usize..1100, 0..6),
        indirect in any::<bool>(),
    ) {
        let image = Image::new();
        let mut driver = Driver::new(image.device());
        driver.start(ring_feature::RING_INDIRECT_DESC | bits(&[9]), 32);
        let mut out = header(if is_write { OUT } else { IN }, sector);
        if is_write {
            out.extend([0x77; 1024]);
        }
        let room = if is_write { 1 } else { 1025 };
        let out_address = driver.place(&out);
        // Across the seam between two mappings.
        let in_address = SECOND_REGION - 300;
        driver.memory.write_slice(&vec![UNTOUCHED; room], GuestAddress(in_address)).unwrap();
        let piece = |base: u64, (start, length): (usize, usize)| {
            (base + u64::try_from(start).unwrap(), u32::try_from(length).unwrap())
        };
        let mut buffers = Vec::new();
        for place in cut(out.len(), &readable_cuts) {
            let (address, length) = piece(out_address, place);
            buffers.push(Buffer::Readable(address, length));
        }
        for place in cut(room, &writable_cuts) {
            let (address, length) = piece(in_address, place);
            buffers.push(Buffer::Writable(address, length));
        }
        let head = if indirect {
            let table = driver.allocate(16 * buffers.len());
            driver.queues[0].add_indirect(table, &buffers)
        } else {
            driver.queues[0].add(&buffers)
        };
        driver.kick(0);
        prop_assert_eq!(driver.wait_used(0), (u32::from(head), u32::try_from(room).unwrap()));
        let answer = driver.fetch(in_address, room);
        prop_assert_eq!(answer[room - 1], 0);
        let at = usize::try_from(sector * 512).unwrap();
        if is_write {
            prop_assert_eq!(&image.content()[at..at + 1024], &[0x77; 1024][..]);
        } else {
            prop_assert_eq!(&answer[..1024], &image.content()[at..at + 1024]);
        }
    }

    /// Whatever a driver writes to the ring, the device answers or breaks, and then works again.
    #[test]
    fn random_rings_and_requests_do_no_harm(
        descriptors in prop::collection::vec(
            (prop_oneof![8 => 0x2_0000_u64..0x2_0400, 1 => any::<u64>()],
             prop_oneof![Just(16_u32), Just(1), Just(512), 0_u32..2048, any::<u32>()],
             0_u16..8, 0_u16..18), 16),
        memory in prop::collection::vec(prop_oneof![4 => Just(0_u8), 2 => 0_u8..14, 1 => any::<u8>()], 1024),
        heads in prop::collection::vec(0_u16..17, 1..12),
    ) {
        let image = Image::new();
        let features = bits(&[9, 11, 13, 14]) | ring_feature::RING_INDIRECT_DESC | ring_feature::RING_EVENT_IDX;
        let mut driver = image.driver(features);
        driver.memory.write_slice(&memory, GuestAddress(0x2_0000)).unwrap();
        for (index, descriptor) in (0..).zip(descriptors) {
            driver.queues[0].split().write_descriptor(index, descriptor);
        }
        for head in heads {
            driver.queues[0].split().offer(head);
        }
        driver.kick(0);
        driver.transport.pause();
        driver.transport.resume();
        prop_assert_eq!(image.content().len(), 64 * 512);
        driver.reset();
        fs::write(image.path(), (0..SECTORS).flat_map(|sector| [u8::try_from(sector).unwrap(); 512]).collect::<Vec<u8>>()).unwrap();
        driver.start(features, 16);
        exercise(&mut driver);
    }
}
