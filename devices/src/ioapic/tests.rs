use proptest::prelude::*;

use super::*;

/// The driver's side: indexed registers through the window.
fn read_register(ioapic: &mut IoApic, index: u8) -> u32 {
    assert_eq!(
        ioapic.write(0x00, &u32::from(index).to_le_bytes()),
        IoApicWrite::default()
    );
    let mut data = [0xff; 4];
    ioapic.read(0x10, &mut data);
    u32::from_le_bytes(data)
}

fn write_register(ioapic: &mut IoApic, index: u8, value: u32) -> IoApicWrite {
    assert_eq!(
        ioapic.write(0x00, &u32::from(index).to_le_bytes()),
        IoApicWrite::default()
    );
    ioapic.write(0x10, &value.to_le_bytes())
}

fn set_entry(ioapic: &mut IoApic, pin: u8, low: u32, destination: u8) -> IoApicWrite {
    let high = write_register(ioapic, 0x11 + 2 * pin, u32::from(destination) << 24);
    assert!(high.messages.is_empty());
    write_register(ioapic, 0x10 + 2 * pin, low)
}

const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;

#[test]
fn identifies_itself() {
    let mut ioapic = IoApic::new();
    assert_eq!(read_register(&mut ioapic, 1), 0x0017_0020);
    assert_eq!(read_register(&mut ioapic, 0), 0);
    assert_eq!(
        write_register(&mut ioapic, 0, 0xffff_ffff),
        IoApicWrite::default()
    );
    assert_eq!(read_register(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(read_register(&mut ioapic, 2), 0x0f00_0000);
    for pin in 0..24 {
        assert_eq!(read_register(&mut ioapic, 0x10 + 2 * pin), MASKED);
        assert_eq!(read_register(&mut ioapic, 0x11 + 2 * pin), 0);
    }
    assert_eq!(read_register(&mut ioapic, 0x40), u32::MAX);
}

#[test]
fn an_edge_sends_one_message_and_a_masked_one_is_forgotten() {
    let mut ioapic = IoApic::new();
    assert_eq!(ioapic.set_level(4, true), None);
    assert_eq!(ioapic.set_level(4, false), None);
    let outcome = set_entry(&mut ioapic, 4, 0x31, 2);
    assert!(outcome.routes_changed && outcome.messages.is_empty());
    let message = Msi {
        address: 0xfee0_2000,
        data: 0x31,
    };
    assert_eq!(ioapic.set_level(4, true), Some(message));
    assert_eq!(ioapic.set_level(4, true), None);
    assert_eq!(ioapic.set_level(4, false), None);
    assert_eq!(ioapic.set_level(4, true), Some(message));
    assert_eq!(ioapic.route(4), Some(message));
    assert_eq!(ioapic.route(5), None);
    assert_eq!(ioapic.route(24), None);
    assert_eq!(ioapic.set_level(24, true), None);
}

#[test]
fn a_level_is_sent_again_until_it_drops() {
    let mut ioapic = IoApic::new();
    assert!(set_entry(&mut ioapic, 9, 0x59 | LEVEL | 1 << 11 | 1 << 8, 0xff).routes_changed);
    let message = Msi {
        address: 0xfeef_f004,
        data: 0xc159,
    };
    assert_eq!(ioapic.set_level(9, true), Some(message));
    assert_eq!(read_register(&mut ioapic, 0x10 + 18) & 1 << 14, 1 << 14);
    assert_eq!(ioapic.set_level(9, false), None);
    assert_eq!(ioapic.set_level(9, true), None, "the first has not ended");
    assert!(ioapic.end_of_interrupt(0x58).is_empty());
    assert_eq!(
        ioapic
            .end_of_interrupt(0x59)
            .into_iter()
            .collect::<Vec<_>>(),
        [message]
    );
    assert_eq!(ioapic.set_level(9, false), None);
    assert!(ioapic.write(0x40, &[0x59]).messages.is_empty());
    assert_eq!(read_register(&mut ioapic, 0x10 + 18) & 1 << 14, 0);
    assert_eq!(ioapic.set_level(9, true), Some(message));
    assert_eq!(
        ioapic
            .write(0x40, &[0x59, 0, 0, 0])
            .messages
            .iter()
            .collect::<Vec<_>>(),
        [message]
    );
}

#[test]
fn unmasking_an_asserted_level_sends_it() {
    let mut ioapic = IoApic::new();
    assert!(set_entry(&mut ioapic, 10, 0x40 | LEVEL | MASKED, 0).routes_changed);
    assert_eq!(ioapic.set_level(10, true), None);
    let outcome = write_register(&mut ioapic, 0x24, 0x40 | LEVEL);
    assert_eq!(outcome.messages.iter().count(), 1);
    assert_eq!(
        write_register(&mut ioapic, 0x24, 0x40 | LEVEL),
        IoApicWrite::default()
    );
}

/// As a threaded handler does it: mask, end, serve, unmask.
#[test]
fn a_masked_level_entry_keeps_its_route_so_that_its_end_is_seen() {
    let mut ioapic = IoApic::new();
    assert!(set_entry(&mut ioapic, 9, 0x59 | LEVEL, 1).routes_changed);
    assert!(ioapic.set_level(9, true).is_some());
    let route = ioapic.route(9);
    assert!(route.is_some());
    assert_eq!(
        write_register(&mut ioapic, 0x22, 0x59 | LEVEL | MASKED),
        IoApicWrite::default()
    );
    assert_eq!(ioapic.route(9), route);
    assert!(ioapic.end_of_interrupt(0x59).is_empty());
    assert_eq!(
        write_register(&mut ioapic, 0x22, 0x59 | LEVEL)
            .messages
            .iter()
            .count(),
        1
    );
    assert!(
        ioapic.end_of_interrupt(0x59).iter().count() == 1,
        "still asserted"
    );
    // An edge-triggered entry loses its route with its mask.
    assert!(set_entry(&mut ioapic, 16, 0x60, 1).routes_changed);
    assert!(write_register(&mut ioapic, 0x30, 0x60 | MASKED).routes_changed);
    assert_eq!(ioapic.route(16), None);
}

#[test]
fn edge_mode_clears_remote_irr() {
    let mut ioapic = IoApic::new();
    assert!(set_entry(&mut ioapic, 3, 0x33 | LEVEL, 0).routes_changed);
    assert!(ioapic.set_level(3, true).is_some());
    assert!(
        !write_register(&mut ioapic, 0x16, 0x33 | LEVEL | MASKED)
            .messages
            .iter()
            .any(|_| true)
    );
    assert_eq!(read_register(&mut ioapic, 0x16) & 1 << 14, 1 << 14);
    assert!(write_register(&mut ioapic, 0x16, 0x33 | MASKED).routes_changed);
    assert_eq!(read_register(&mut ioapic, 0x16), 0x33 | MASKED);
}

#[test]
fn external_and_reserved_delivery_modes_send_nothing() {
    let mut ioapic = IoApic::new();
    for delivery_mode in [3, 6, 7] {
        assert!(!set_entry(&mut ioapic, 0, 0x20 | delivery_mode << 8, 0).routes_changed);
        assert_eq!(ioapic.set_level(0, true), None);
        assert_eq!(ioapic.set_level(0, false), None);
    }
    assert!(set_entry(&mut ioapic, 0, 4 << 8 | LEVEL, 0).routes_changed);
    assert_eq!(
        ioapic.set_level(0, true),
        Some(Msi {
            address: 0xfee0_0000,
            data: 0x400
        })
    );
}

#[test]
fn all_pins_of_one_vector_end_together() {
    let mut ioapic = IoApic::new();
    for pin in 0..24 {
        let _ = set_entry(&mut ioapic, pin, 0x77 | LEVEL, pin);
        assert!(ioapic.set_level(u32::from(pin), true).is_some());
    }
    assert_eq!(ioapic.end_of_interrupt(0x77).into_iter().count(), 24);
}

#[derive(Debug, Clone)]
enum Action {
    Level(u32, bool),
    EndOfInterrupt(u8),
    Write(u64, Vec<u8>),
    Select(u8),
    Window(u32),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0u32..26, any::<bool>()).prop_map(|(pin, asserted)| Action::Level(pin, asserted)),
        (0u8..4).prop_map(Action::EndOfInterrupt),
        (0u64..0x48, prop::collection::vec(any::<u8>(), 1..=8))
            .prop_map(|(offset, data)| Action::Write(offset, data)),
        (0u8..0x44).prop_map(Action::Select),
        // Few vectors, so that ends of interrupts meet entries.
        any::<u32>().prop_map(|value| Action::Window(value & 0xff01_ff03)),
    ]
}

proptest! {
    /// Whatever a guest does: routes change exactly when the outcome says so, remote IRR stands on
    /// level entries alone, and no level interrupt that may be sent is held back.
    #[test]
    fn holds_its_invariants(actions in prop::collection::vec(action(), 0..200)) {
        let mut ioapic = IoApic::new();
        for action in actions {
            let before: Vec<_> = (0..24).map(|pin| ioapic.route(pin)).collect();
            let mut routes_changed = false;
            let mut outcome = IoApicWrite::default();
            match action {
                Action::Level(pin, asserted) => { let _ = ioapic.set_level(pin, asserted); }
                Action::EndOfInterrupt(vector) => { let _ = ioapic.end_of_interrupt(vector); }
                Action::Write(offset, data) => outcome = ioapic.write(offset, &data),
                Action::Select(index) => outcome = ioapic.write(0, &[index]),
                Action::Window(value) => outcome = ioapic.write(0x10, &value.to_le_bytes()),
            }
            routes_changed |= outcome.routes_changed;
            let after: Vec<_> = (0..24).map(|pin| ioapic.route(pin)).collect();
            prop_assert_eq!(before != after, routes_changed);
            for (entry, asserted) in ioapic.entries.iter().zip(ioapic.asserted) {
                prop_assert!(!entry.has_remote_irr() || entry.is_level());
                let due = asserted && entry.is_level() && entry.message().is_some();
                prop_assert!(!due || entry.has_remote_irr());
            }
            let mut data = [0xff; 8];
            ioapic.read(0x10, &mut data);
        }
    }
}
