use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::UnconnectedIrqLine;
use proptest::prelude::*;

use super::*;
use crate::HostClock;
use crate::test_clock::TestClock;
use crate::test_line::TestLine;

struct Machine {
    clock: Arc<TestClock>,
    pit: Pit,
}

impl Machine {
    fn new() -> Self {
        let clock = Arc::new(TestClock::default());
        Self {
            pit: Pit::new(Arc::new(UnconnectedIrqLine), clock.clone()),
            clock,
        }
    }

    fn out(&self, port: u16, value: u8) {
        let effect = match port {
            0x61 => self.pit.system_control_b().write(0, &[value]),
            _ => self.pit.counters().write(port - 0x40, &[value]),
        };
        assert_eq!(effect, Effect::None);
    }

    fn read(&self, port: u16) -> u8 {
        let mut data = [0xff];
        match port {
            0x61 => self.pit.system_control_b().read(0, &mut data),
            _ => self.pit.counters().read(port - 0x40, &mut data),
        }
        data[0]
    }

    fn program(&self, counter: u8, mode: u8, count: u16) {
        self.out(0x43, counter << 6 | 3 << 4 | mode << 1);
        self.out(0x40 + u16::from(counter), count.to_le_bytes()[0]);
        self.out(0x40 + u16::from(counter), count.to_le_bytes()[1]);
    }

    /// Latches and reads a two-byte count.
    fn count(&self, counter: u8) -> u16 {
        self.out(0x43, counter << 6);
        let port = 0x40 + u16::from(counter);
        u16::from_le_bytes([self.read(port), self.read(port)])
    }

    /// Moves to the moment at which the clock has ticked `ticks` times since the start.
    fn go_to(&self, ticks: u64) {
        let now = self.clock.monotonic_ns();
        self.clock.advance_ns(moment_of(ticks) - now);
    }

    fn output(&self) -> bool {
        self.read(0x61) & SPEAKER_OUTPUT != 0
    }
}

#[test]
fn counts_down_and_wraps_in_mode_0() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 0, 100);
    assert_eq!(machine.count(2), 100);
    machine.go_to(99);
    assert_eq!(machine.count(2), 1);
    assert!(!machine.output());
    machine.go_to(100);
    assert_eq!(machine.count(2), 0);
    assert!(machine.output());
    machine.go_to(103);
    assert_eq!(machine.count(2), 0xfffd);
    assert!(machine.output());
}

#[test]
fn the_gate_stops_mode_0_and_goes_on() {
    let machine = Machine::new();
    machine.program(2, 0, 1000);
    machine.go_to(500);
    assert_eq!(machine.count(2), 1000, "closed from the start");
    machine.out(0x61, 1);
    machine.go_to(600);
    machine.out(0x61, 0);
    machine.go_to(5000);
    assert_eq!(machine.count(2), 900);
    machine.out(0x61, 1);
    machine.go_to(5899);
    assert!(!machine.output());
    machine.go_to(5900);
    assert!(machine.output());
}

#[test]
fn the_first_byte_of_two_stops_mode_0() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 0, 10);
    machine.go_to(20);
    assert!(machine.output());
    machine.out(0x42, 7);
    assert!(!machine.output());
    machine.go_to(2000);
    assert!(!machine.output());
    machine.out(0x42, 0);
    machine.go_to(2007);
    assert!(machine.output());
}

#[test]
fn one_shots_start_with_the_gate() {
    for (mode, level) in [(1, true), (5, false)] {
        let machine = Machine::new();
        machine.program(2, mode, 50);
        machine.go_to(100);
        assert!(machine.output());
        machine.out(0x61, 1);
        machine.out(0x61, 0);
        assert_eq!(machine.output(), mode == 5);
        machine.go_to(149);
        assert_eq!(machine.output(), mode == 5);
        machine.go_to(150);
        assert_eq!(machine.output(), level);
        machine.go_to(151);
        assert!(machine.output());
        machine.out(0x61, 1);
        assert_eq!(machine.count(2), 50, "triggered again");
    }
}

#[test]
fn the_rate_generator_is_low_for_one_tick() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 2, 5);
    let seen: Vec<_> = (0..10)
        .map(|tick| {
            machine.go_to(tick);
            (machine.count(2), machine.output())
        })
        .collect();
    let period = [(5, true), (4, true), (3, true), (2, true), (1, false)];
    assert_eq!(seen, [period, period].concat());
    machine.out(0x61, 0);
    machine.go_to(14);
    assert!(machine.output(), "a closed gate holds the output up");
}

#[test]
fn the_square_wave_is_symmetric() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 3, 6);
    let wave = |from: u64, length: u64| -> Vec<_> {
        (from..from + length)
            .map(|tick| {
                machine.go_to(tick);
                (machine.count(2), machine.output())
            })
            .collect()
    };
    let even = [
        (6, true),
        (4, true),
        (2, true),
        (6, false),
        (4, false),
        (2, false),
    ];
    assert_eq!(wave(0, 12), [even, even].concat());
    machine.go_to(20);
    machine.program(2, 3, 5);
    assert_eq!(
        wave(20, 5),
        [(4, true), (2, true), (0, true), (4, false), (2, false)]
    );
}

#[test]
fn a_new_count_waits_for_the_end_of_the_period() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 2, 100);
    machine.go_to(30);
    machine.out(0x42, 10);
    machine.out(0x42, 0);
    assert_eq!(machine.count(2), 70);
    machine.out(0x43, 0b1110_1000);
    assert_eq!(machine.read(0x42), 0b1111_0100, "null count, output high");
    machine.go_to(100);
    assert_eq!(machine.count(2), 10);
    machine.out(0x43, 0b1110_1000);
    assert_eq!(machine.read(0x42), 0b1011_0100);
}

#[test]
fn latches_hold_until_they_are_read() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.program(2, 0, 1000);
    machine.out(0x43, 0b1100_1000);
    machine.go_to(300);
    machine.out(0x43, 0b1101_1000);
    assert_eq!(machine.read(0x42), 0b0011_0000, "the status comes first");
    assert_eq!(
        [machine.read(0x42), machine.read(0x42)],
        1000u16.to_le_bytes()
    );
    assert_eq!(machine.count(2), 700);
}

#[test]
fn counts_in_decimal() {
    let machine = Machine::new();
    machine.out(0x61, 1);
    machine.out(0x43, 0b1011_0001);
    machine.out(0x42, 0);
    machine.out(0x42, 0);
    assert_eq!(machine.count(2), 0);
    machine.go_to(1);
    assert_eq!(machine.count(2), 0x9999);
    machine.go_to(8766);
    assert_eq!(machine.count(2), 0x1234);
    machine.go_to(10_000);
    assert!(machine.output());
}

#[test]
fn single_bytes_are_transferred() {
    let machine = Machine::new();
    machine.out(0x43, 0b0101_0100);
    machine.out(0x41, 18);
    assert_eq!(machine.read(0x41), 18);
    machine.out(0x43, 0b0110_0100);
    machine.out(0x41, 2);
    machine.go_to(1);
    assert_eq!(machine.read(0x41), 1);
}

#[test]
fn port_b_reads_back_and_refreshes() {
    let machine = Machine::new();
    machine.out(0x61, 0xff);
    assert_eq!(machine.read(0x61) & 0xcf, 0x0f);
    let toggles = (0..180)
        .map(|tick| {
            machine.go_to(tick);
            machine.read(0x61) & SPEAKER_REFRESH
        })
        .collect::<Vec<_>>()
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .count();
    assert_eq!(toggles, 9);
    assert_eq!(machine.read(0x43), 0xff, "the control word cannot be read");
}

/// A state without its thread, so that a test alone moves it.
fn bare_state() -> (State, Arc<TestLine>) {
    let line = Arc::new(TestLine::default());
    let state = State {
        irq: line.clone(),
        counters: [Counter::new(true), Counter::new(true), Counter::new(false)],
        speaker: 0,
        seen_ticks: 0,
        is_interrupt_due: false,
        earliest_interrupt_ns: 0,
    };
    (state, line)
}

#[test]
fn periodic_interrupts_keep_their_rate() {
    let (mut state, line) = bare_state();
    assert_eq!(
        state.next_deadline_ns(),
        None,
        "nothing to wait for after reset"
    );
    state.write_control(0, 0b0011_0100);
    state.counters[0].write(0, 0xa9);
    state.counters[0].write(0, 0x04);
    let mut now_ns = 0;
    for _ in 0..1000 {
        now_ns = state.next_deadline_ns().unwrap();
        state.advance(now_ns);
    }
    assert_eq!(line.rising_edges(), 1000);
    assert_eq!(now_ns, moment_of(1000 * 0x4a9));
}

#[test]
fn a_one_shot_interrupts_once() {
    for mode in [0, 4] {
        let (mut state, line) = bare_state();
        state.write_control(0, 0b0001_0000 | mode << 1);
        state.counters[0].write(0, 200);
        state.advance(moment_of(200) - 1);
        assert_eq!(line.rising_edges(), 0);
        state.advance(state.next_deadline_ns().unwrap());
        assert_eq!(line.rising_edges(), 1);
        assert_eq!(state.next_deadline_ns(), None);
    }
}

#[test]
fn a_greedy_guest_gets_the_shortest_period() {
    let (mut state, line) = bare_state();
    state.write_control(0, 0b0001_0100);
    state.counters[0].write(0, 2);
    let mut now_ns = 0;
    for _ in 0..100 {
        let deadline_ns = state.next_deadline_ns().unwrap();
        assert!(deadline_ns >= now_ns);
        now_ns = deadline_ns;
        state.advance(now_ns);
    }
    assert!(now_ns >= 98 * MINIMUM_PERIOD_NS, "{now_ns}");
    assert!(line.rising_edges() >= 50);
}

#[test]
fn the_thread_delivers_and_ends() {
    let line = Arc::new(TestLine::default());
    let pit = Pit::new(line.clone(), Arc::new(HostClock::new()));
    let mut counters = pit.counters();
    assert_eq!(counters.write(3, &[0b0011_0100]), Effect::None);
    assert!(lock_thread(&pit).is_none());
    assert_eq!(counters.write(0, &[0xa9]), Effect::None);
    assert_eq!(counters.write(0, &[0x04]), Effect::None);
    assert!(lock_thread(&pit).is_some());
    let start = Instant::now();
    while line.rising_edges() < 5 && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(line.rising_edges() >= 5 && !line.is_asserted());
    drop(counters);
    drop(pit);
    assert_eq!(Arc::strong_count(&line), 1, "the thread is gone");
}

fn lock_thread(pit: &Pit) -> Option<std::thread::ThreadId> {
    pit.timed.thread_id()
}

proptest! {
    /// Any programme at any time: nothing panics, and deadlines are neither in the past nor closer
    /// together than is allowed.
    #[test]
    fn survives_any_programme(actions in prop::collection::vec((0u16..6, any::<u8>(), 0u64..100_000_000), 0..200)) {
        let (mut state, line) = bare_state();
        let mut now_ns = 0;
        for (port, value, wait_ns) in actions {
            now_ns += wait_ns;
            state.advance(now_ns);
            let ticks = ticks_at(now_ns);
            match port {
                0..3 => state.counters[usize::from(port)].write(ticks, value),
                3 => state.write_control(ticks, value),
                4 => { state.counters[usize::from(value % 3)].read(ticks); }
                _ => state.counters[2].set_gate(ticks, value & 1 != 0),
            }
            if let Some(deadline_ns) = state.next_deadline_ns() {
                let edges = line.rising_edges();
                prop_assert!(deadline_ns >= now_ns);
                now_ns = deadline_ns;
                state.advance(now_ns);
                prop_assert!(line.rising_edges() <= edges + 1);
            }
        }
        prop_assert!(line.rising_edges() <= 1 + now_ns / MINIMUM_PERIOD_NS);
    }

    /// Between two neighbouring ticks the output rises exactly where the counter says that it will.
    #[test]
    fn edges_are_where_the_output_rises(mode in 0u8..6, count in 1u8..40) {
        let mut counter = Counter::new(true);
        counter.write_control(0, 0b0001_0000 | mode << 1);
        counter.write(0, count);
        for tick in 0..200 {
            let rises = !counter.output(tick) && counter.output(tick + 1);
            let announced = counter.next_rising_edge(tick) == Some(tick + 1);
            // A count of one in the periodic modes is illegal; see `Counter::period`.
            prop_assert_eq!(rises, announced, "mode {} count {} tick {}", mode, count, tick);
        }
    }
}
