use proptest::prelude::*;

use super::*;
use crate::test_clock::TestClock;
use crate::test_line::TestLine;

fn block() -> (AcpiPm, Arc<TestLine>, Arc<TestClock>) {
    let line = Arc::new(TestLine::default());
    let clock = Arc::new(TestClock::default());
    (AcpiPm::new(line.clone(), clock.clone()), line, clock)
}

fn read_16(block: &mut AcpiPm, offset: u16) -> u16 {
    let mut data = [0xff; 2];
    block.read(offset, &mut data);
    u16::from_le_bytes(data)
}

fn write_16(block: &mut AcpiPm, offset: u16, value: u16) -> Effect {
    block.write(offset, &value.to_le_bytes())
}

#[test]
fn the_power_button_interrupts_until_it_is_acknowledged() {
    let (mut block, line, _) = block();
    assert!(!block.press_power_button());
    assert_eq!(read_16(&mut block, 0), 1 << 8);
    assert!(!line.is_asserted(), "not enabled");
    assert_eq!(write_16(&mut block, 0, 1 << 8), Effect::None);
    assert_eq!(write_16(&mut block, 2, 0xffff), Effect::None);
    assert_eq!(read_16(&mut block, 2), 0x0721);
    assert!(block.press_power_button());
    assert!(line.is_asserted());
    assert_eq!(write_16(&mut block, 0, !(1 << 8)), Effect::None);
    assert!(line.is_asserted(), "another bit");
    assert_eq!(block.write(1, &[1]), Effect::None);
    assert_eq!(read_16(&mut block, 0), 0);
    assert!(!line.is_asserted());
    assert!(block.press_power_button());
    assert_eq!(write_16(&mut block, 2, 0), Effect::None);
    assert!(!line.is_asserted());
}

#[test]
fn s5_powers_off() {
    let (mut block, _, _) = block();
    assert_eq!(read_16(&mut block, 4), 1, "born in ACPI mode");
    assert_eq!(write_16(&mut block, 4, 5 << 10 | 1), Effect::None);
    assert_eq!(read_16(&mut block, 4), 5 << 10 | 1);
    assert_eq!(write_16(&mut block, 4, 5 << 10 | 1 << 13), Effect::PowerOff);
    assert_eq!(
        read_16(&mut block, 4),
        5 << 10 | 1,
        "SLP_EN reads as zero, SCI_EN as one"
    );
    assert_eq!(
        write_16(&mut block, 4, 1 << 10 | 1 << 13),
        Effect::None,
        "no S1"
    );
    assert_eq!(
        block.write(5, &[0x34]),
        Effect::PowerOff,
        "by its high byte alone"
    );
    assert_eq!(block.write(4, &[0, 0x34, 0, 0]), Effect::PowerOff);
}

#[test]
fn the_timer_counts_and_wraps() {
    let (mut block, line, clock) = block();
    let read = |block: &mut AcpiPm| {
        let mut data = [0xff; 4];
        block.read(8, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!(read(&mut block), 0);
    clock.advance_ns(1_000_000_000);
    assert_eq!(read(&mut block), 3_579_545);
    assert_eq!(block.write(8, &[0; 4]), Effect::None);
    assert_eq!(read(&mut block), 3_579_545);
    assert_eq!(write_16(&mut block, 2, 0), Effect::None);
    clock.advance_ns(600_000_000_000);
    assert_eq!(read_16(&mut block, 0), 1, "the highest bit changed");
    assert!(!line.is_asserted());
    clock.advance_ns(599_000_000_000);
    assert_eq!(
        read(&mut block),
        u32::try_from(1_200 * 3_579_545u64 % (1 << 32)).unwrap()
    );
}

#[test]
fn the_timer_has_a_deadline_when_its_interrupt_is_enabled() {
    let line = Arc::new(TestLine::default());
    let mut state = State {
        sci: line.clone(),
        is_sci_asserted: false,
        status: 0,
        enable: 0,
        control: 1,
        seen_ticks: 0,
    };
    assert_eq!(state.next_deadline_ns(), None);
    assert_eq!(state.write(2, &[1]), Effect::None);
    let deadline_ns = state.next_deadline_ns().unwrap();
    state.advance(deadline_ns - 1);
    assert!(!line.is_asserted());
    state.advance(deadline_ns);
    assert!(line.is_asserted());
    assert_eq!(state.next_deadline_ns(), None);
    assert_eq!(state.write(0, &[1]), Effect::None);
    assert!(!line.is_asserted() && state.next_deadline_ns() > Some(deadline_ns));
}

#[test]
fn accesses_of_any_width_see_the_same_registers() {
    let (mut block, _, clock) = block();
    clock.advance_ns(123_456_789);
    assert_eq!(write_16(&mut block, 2, 0x0100), Effect::None);
    let mut whole = [0xff; 12];
    block.read(0, &mut whole);
    for (offset, byte) in (0..12).zip(whole) {
        let mut data = [0xff];
        block.read(offset, &mut data);
        assert_eq!(data[0], byte);
    }
}

proptest! {
    /// The interrupt is up exactly when an enabled event stands, and only S5 ends the machine.
    #[test]
    fn holds_its_invariants(accesses in prop::collection::vec((0u16..12, prop::collection::vec(any::<u8>(), 1..=4), any::<bool>()), 0..100)) {
        let (mut block, line, clock) = block();
        for (offset, data, presses) in accesses {
            if presses {
                block.press_power_button();
            }
            // The thread must not be started here: the clock that it would wait by stands still.
            let data: Vec<u8> = (offset..).zip(data).map(|(offset, value)| if offset == 2 { value & !1 } else { value }).collect();
            let effect = block.write(offset, &data);
            prop_assert!(matches!(effect, Effect::None | Effect::PowerOff));
            prop_assert!(effect == Effect::None || read_16(&mut block, 4) >> 10 & 7 == 5);
            clock.advance_ns(1 << 35);
            let pending = read_16(&mut block, 0) & read_16(&mut block, 2);
            prop_assert_eq!(line.is_asserted(), pending != 0);
        }
    }
}
