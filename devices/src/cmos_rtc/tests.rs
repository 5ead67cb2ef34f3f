use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::HostClock;
use crate::test_clock::TestClock;
use crate::test_line::TestLine;

/// 2026-08-14 21:37:58 UTC, a Friday.
const NOW: u64 = 1_786_743_478;

const RAM: RamSize = RamSize {
    below_4_gib_bytes: 3 << 30,
    above_4_gib_bytes: 5 << 30,
};

fn chip() -> (CmosRtc, Arc<TestClock>, Arc<TestLine>) {
    let clock = Arc::new(TestClock::at_utc(NOW));
    let line = Arc::new(TestLine::default());
    (CmosRtc::new(line.clone(), clock.clone(), RAM), clock, line)
}

fn read(rtc: &mut CmosRtc, index: u8) -> u8 {
    assert_eq!(rtc.write(0, &[index]), Effect::None);
    let mut data = [0xff];
    rtc.read(1, &mut data);
    data[0]
}

fn write(rtc: &mut CmosRtc, index: u8, value: u8) {
    assert_eq!(rtc.write(0, &[0x80 | index]), Effect::None);
    assert_eq!(rtc.write(1, &[value]), Effect::None);
}

/// Century, year, month, day, day of week, hours, minutes, seconds.
fn time(rtc: &mut CmosRtc) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| read(rtc, index))
}

#[test]
fn shows_the_time_of_the_host() {
    let (mut rtc, clock, _) = chip();
    assert_eq!(
        time(&mut rtc),
        [0x20, 0x26, 0x08, 0x14, 6, 0x21, 0x37, 0x58]
    );
    write(&mut rtc, 0x0b, 0x06);
    assert_eq!(time(&mut rtc), [20, 26, 8, 14, 6, 21, 37, 58]);
    write(&mut rtc, 0x0b, 0x00);
    assert_eq!(read(&mut rtc, 4), 0x89, "9 p.m.");
    clock.advance_ns(2_000_000_000);
    assert_eq!(read(&mut rtc, 2), 0x38);
    clock.advance_ns((2 * 3600 + 22 * 60) * 1_000_000_000);
    assert_eq!(
        [read(&mut rtc, 4), read(&mut rtc, 7)],
        [0x12, 0x15],
        "midnight is 12 a.m."
    );
    assert_eq!(read(&mut rtc, 0x0d), 0x80);
    let mut data = [0xff];
    rtc.read(0, &mut data);
    assert_eq!(data, [0xff], "the index cannot be read");
}

#[test]
fn announces_an_update() {
    let (mut rtc, clock, _) = chip();
    assert_eq!(read(&mut rtc, 0x0a), 0x26);
    clock.advance_ns(999_755_999);
    assert_eq!(read(&mut rtc, 0x0a), 0x26);
    clock.advance_ns(1);
    assert_eq!(read(&mut rtc, 0x0a), 0xa6);
    clock.advance_ns(244_000);
    assert_eq!(read(&mut rtc, 0x0a), 0x26);
}

/// As Linux does it: stop, hold the divider, write, let go.
#[test]
fn can_be_set() {
    let (mut rtc, clock, _) = chip();
    clock.advance_ns(123_456_789);
    write(&mut rtc, 0x0b, 0x82);
    write(&mut rtc, 0x0a, 0x76);
    for (index, value) in [
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x59),
        (0x32, 0x19),
    ] {
        write(&mut rtc, index, value);
    }
    clock.advance_ns(5_000_000_000);
    assert_eq!(read(&mut rtc, 0), 0x59, "stopped");
    write(&mut rtc, 0x0b, 0x02);
    write(&mut rtc, 0x0a, 0x26);
    clock.advance_ns(499_999_999);
    assert_eq!(read(&mut rtc, 0), 0x59);
    clock.advance_ns(1);
    assert_eq!(time(&mut rtc), [0x20, 0, 1, 1, 7, 0, 0, 0], "a Saturday");
    // Without stopping, one part at a time.
    write(&mut rtc, 9, 0x24);
    write(&mut rtc, 8, 0x02);
    write(&mut rtc, 7, 0x29);
    assert_eq!(time(&mut rtc), [0x20, 0x24, 2, 0x29, 5, 0, 0, 0]);
}

#[test]
fn a_stopped_clock_keeps_its_phase() {
    let (mut rtc, clock, _) = chip();
    clock.advance_ns(250_000_000);
    write(&mut rtc, 0x0b, 0x82);
    clock.advance_ns(3_000_000_000);
    write(&mut rtc, 0x0b, 0x02);
    clock.advance_ns(749_999_999);
    assert_eq!(read(&mut rtc, 0), 0x58);
    clock.advance_ns(1);
    assert_eq!(read(&mut rtc, 0), 0x59);
}

#[test]
fn memory_is_memory() {
    let (mut rtc, _, _) = chip();
    let number = |rtc: &mut CmosRtc, indices: &[u8]| {
        indices
            .iter()
            .rev()
            .fold(0u32, |sum, index| sum << 8 | u32::from(read(rtc, *index)))
    };
    assert_eq!(number(&mut rtc, &[0x15, 0x16]), 640);
    assert_eq!(number(&mut rtc, &[0x17, 0x18]), 0xffff);
    assert_eq!(number(&mut rtc, &[0x30, 0x31]), 0xffff);
    assert_eq!(number(&mut rtc, &[0x34, 0x35]), (3 << 14) - (1 << 8));
    assert_eq!(number(&mut rtc, &[0x5b, 0x5c, 0x5d]), 5 << 14);
    for index in (0x0e..0x80).filter(|index| *index != 0x32) {
        write(&mut rtc, index, index ^ 0x5a);
    }
    for index in (0x0e..0x80).filter(|index| *index != 0x32) {
        assert_eq!(read(&mut rtc, index), index ^ 0x5a);
    }
    write(&mut rtc, 0x0d, 0);
    assert_eq!(read(&mut rtc, 0x0d), 0x80);
}

#[test]
fn flags_are_raised_without_interrupts_and_read_once() {
    let (mut rtc, clock, line) = chip();
    write(&mut rtc, 1, 0x59);
    write(&mut rtc, 3, 0xff);
    write(&mut rtc, 5, 0xc0);
    assert_eq!(read(&mut rtc, 0x0c), 0);
    clock.advance_ns(1_000_000);
    assert_eq!(read(&mut rtc, 0x0c), 0x40, "1024 Hz");
    clock.advance_ns(999_000_000);
    assert_eq!(read(&mut rtc, 0x0c), 0x70);
    assert_eq!(read(&mut rtc, 0x0c), 0);
    write(&mut rtc, 0x0a, 0x20);
    clock.advance_ns(1_000_000_000);
    assert_eq!(read(&mut rtc, 0x0c), 0x10, "no rate, no alarm");
    assert!(!line.is_asserted());
}

fn bare_state() -> (State, Arc<TestClock>, Arc<TestLine>) {
    let clock = Arc::new(TestClock::at_utc(NOW));
    let line = Arc::new(TestLine::default());
    (State::new(line.clone(), clock.clone(), RAM), clock, line)
}

impl State {
    fn poke(&mut self, index: u8, value: u8) {
        self.index = index;
        self.write_data(value);
    }

    fn peek(&mut self, index: u8) -> u8 {
        self.index = index;
        self.read_data()
    }

    /// Does what the thread does, up to the next deadline. Returns how long that took.
    fn sleep(&mut self, clock: &TestClock) -> u64 {
        let before = clock.monotonic_ns();
        let rest_ns = self.next_deadline_ns().unwrap() - before;
        clock.advance_ns(rest_ns);
        self.advance(clock.monotonic_ns());
        rest_ns
    }
}

#[test]
fn an_alarm_interrupts_at_its_time() {
    let (mut state, clock, line) = bare_state();
    for (index, value) in [(1, 0x30), (3, 0x05), (5, 0x06)] {
        state.poke(index, value);
    }
    assert_eq!(state.next_deadline_ns(), None);
    state.poke(0x0b, 0x22);
    // From 21:37:58 to 06:05:30.
    assert_eq!(
        state.sleep(&clock),
        (8 * 3600 + 27 * 60 + 32) * 1_000_000_000
    );
    assert!(line.is_asserted());
    assert_eq!(
        state.next_deadline_ns(),
        None,
        "nothing more until it is acknowledged"
    );
    assert_eq!(state.peek(0x0c) & 0xa0, 0xa0);
    assert!(!line.is_asserted());
    assert_eq!(state.sleep(&clock), 86_400 * 1_000_000_000);
    // A time that no clock shows.
    state.peek(0x0c);
    state.poke(5, 0x24);
    assert_eq!(state.next_deadline_ns(), None);
    // 12 hours: 6 p.m.
    state.poke(0x0b, 0x20);
    state.poke(5, 0x86);
    assert_eq!(state.sleep(&clock), 12 * 3600 * 1_000_000_000);
}

#[test]
fn updates_interrupt_each_second() {
    let (mut state, clock, line) = bare_state();
    clock.advance_ns(400_000_000);
    state.advance(clock.monotonic_ns());
    state.poke(0x0b, 0x12);
    assert_eq!(state.sleep(&clock), 600_000_000);
    for _ in 0..5 {
        assert_eq!(state.peek(0x0c) & 0x90, 0x90);
        assert_eq!(state.sleep(&clock), 1_000_000_000);
    }
    assert_eq!(line.rising_edges(), 6);
    state.poke(0x0b, 0x92);
    state.peek(0x0c);
    assert_eq!(
        state.next_deadline_ns(),
        None,
        "a stopped clock has no updates"
    );
}

#[test]
fn periodic_interrupts_come_at_their_rate_and_no_faster_than_allowed() {
    for (rate, period_ns) in [
        (6, 976_562),
        (15, 500_000_000),
        (1, 3_906_250),
        (2, 7_812_500),
    ] {
        let (mut state, clock, line) = bare_state();
        state.poke(0x0a, 0x20 | rate);
        state.poke(0x0b, 0x42);
        let mut total_ns = 0;
        for _ in 0..100 {
            total_ns += state.sleep(&clock);
            assert_eq!(state.peek(0x0c) & 0xc0, 0xc0);
        }
        assert_eq!(line.rising_edges(), 100);
        assert!(total_ns.abs_diff(100 * period_ns) < 100, "{total_ns}");
    }
    let (mut state, clock, _) = bare_state();
    state.poke(0x0a, 0x23);
    state.poke(0x0b, 0x42);
    state.sleep(&clock);
    for _ in 0..100 {
        state.peek(0x0c);
        assert!(state.sleep(&clock) >= MINIMUM_PERIOD_NS);
    }
}

#[test]
fn the_thread_delivers_and_ends() {
    let line = Arc::new(TestLine::default());
    let mut rtc = CmosRtc::new(line.clone(), Arc::new(HostClock::new()), RAM);
    assert!(rtc.timed.thread_id().is_none());
    write(&mut rtc, 0x0a, 0x26);
    write(&mut rtc, 0x0b, 0x42);
    let start = Instant::now();
    while line.rising_edges() < 5 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
        read(&mut rtc, 0x0c);
    }
    assert!(line.rising_edges() >= 5);
    drop(rtc);
    assert_eq!(Arc::strong_count(&line), 1, "the thread is gone");
}

proptest! {
    /// Any accesses at any time: no panic, the line follows the enabled flags, deadlines lie ahead.
    #[test]
    fn holds_its_invariants(accesses in prop::collection::vec((0u8..0x40, prop::option::of(any::<u8>()), 0u64..100_000_000_000_000), 0..100)) {
        let (mut state, clock, line) = bare_state();
        for (index, value, wait_ns) in accesses {
            clock.advance_ns(wait_ns);
            state.advance(clock.monotonic_ns());
            match value {
                Some(value) => state.poke(index, value),
                None => { state.peek(index); }
            }
            prop_assert_eq!(line.is_asserted(), state.has_interrupt());
            if let Some(deadline_ns) = state.next_deadline_ns() {
                prop_assert!(deadline_ns > clock.monotonic_ns());
            }
        }
    }

    /// What is written as a date is read back, in every encoding.
    #[test]
    fn dates_are_kept(mode in 0u8..4, year in 0u16..=9999, month in 1u8..=12, day in 1u8..=28, hour in 0u8..24, minute in 0u8..60, second in 0u8..60) {
        let mode = mode << 1;
        let (mut state, _, _) = bare_state();
        state.poke(0x0b, 0x80 | mode);
        let bytes = [
            (0x32, encoding::encode(mode, u8::try_from(year / 100).unwrap())),
            (9, encoding::encode(mode, u8::try_from(year % 100).unwrap())),
            (8, encoding::encode(mode, month)),
            (7, encoding::encode(mode, day)),
            (4, encoding::encode_hour(mode, hour)),
            (2, encoding::encode(mode, minute)),
            (0, encoding::encode(mode, second)),
        ];
        for (index, value) in bytes {
            state.poke(index, value);
        }
        state.poke(0x0b, mode);
        for (index, value) in bytes {
            prop_assert_eq!(state.peek(index), value);
        }
    }
}
