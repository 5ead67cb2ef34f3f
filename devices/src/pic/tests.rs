use proptest::prelude::*;

use super::*;

/// Initialises both chips as Linux does: vectors 0x30 and 0x38, cascade on 2, then the masks.
fn initialised(masks: [u8; 2], icw4: u8) -> Pic {
    let mut pic = Pic::new();
    for (port, icw2, icw3, mask) in [(0x20, 0x30, 1 << 2, masks[0]), (0xa0, 0x38, 2, masks[1])] {
        pic.write(port, &[0x11]);
        pic.write(port + 1, &[icw2]);
        pic.write(port + 1, &[icw3]);
        pic.write(port + 1, &[icw4]);
        pic.write(port + 1, &[mask]);
    }
    pic
}

fn read(pic: &mut Pic, port: u16) -> u8 {
    let mut data = [0xff];
    pic.read(port, &mut data);
    data[0]
}

/// (requests, in service) of the chip at `port`.
fn status(pic: &mut Pic, port: u16) -> (u8, u8) {
    pic.write(port, &[0x0a]);
    let requests = read(pic, port);
    pic.write(port, &[0x0b]);
    (requests, read(pic, port))
}

fn pulse(pic: &mut Pic, irq: u32) {
    pic.set_level(irq, true);
    pic.set_level(irq, false);
}

#[test]
fn masks_are_kept_before_initialisation_and_nothing_is_asserted() {
    let mut pic = Pic::new();
    pic.write(0x21, &[0xfb]);
    assert_eq!(read(&mut pic, 0x21), 0xfb);
    pic.write(0x21, &[0]);
    pic.set_level(1, true);
    assert!(!pic.has_interrupt());
    assert!(!pic.write(0x20, &[0x11]));
    assert!(!pic.write(0x21, &[0x30]));
    assert!(!pic.write(0x21, &[4]));
    assert!(!pic.write(0x21, &[1]));
    pic.set_level(1, true);
    assert!(!pic.has_interrupt(), "an edge before ICW1 does not count");
    pic.set_level(1, false);
    pic.set_level(1, true);
    assert!(pic.has_interrupt());
}

#[test]
fn an_edge_is_served_once() {
    let mut pic = initialised([0, 0], 1);
    pulse(&mut pic, 4);
    assert_eq!(status(&mut pic, 0x20), (1 << 4, 0));
    assert!(pic.has_interrupt());
    assert_eq!(pic.acknowledge(), 0x34);
    assert!(!pic.has_interrupt());
    assert_eq!(status(&mut pic, 0x20), (0, 1 << 4));
    pulse(&mut pic, 5);
    assert!(!pic.has_interrupt(), "lower priority waits");
    pulse(&mut pic, 1);
    assert!(pic.has_interrupt(), "higher priority nests");
    assert_eq!(pic.acknowledge(), 0x31);
    assert!(!pic.write(0x20, &[0x20]), "ends 1, not 4");
    assert_eq!(status(&mut pic, 0x20), (1 << 5, 1 << 4));
    assert!(pic.write(0x20, &[0x64]), "ends 4 by name");
    assert_eq!(pic.acknowledge(), 0x35);
}

#[test]
fn the_secondary_asks_through_the_cascade() {
    let mut pic = initialised([0xfb, 0xfe], 1);
    pulse(&mut pic, 8);
    assert_eq!(status(&mut pic, 0x20).0, 1 << 2);
    assert_eq!(pic.acknowledge(), 0x38);
    assert_eq!(status(&mut pic, 0x20), (0, 1 << 2));
    assert_eq!(status(&mut pic, 0xa0), (0, 1));
    pulse(&mut pic, 8);
    assert!(!pic.write(0xa0, &[0x20]), "the primary has not ended");
    assert!(pic.write(0x20, &[0x20]));
    assert_eq!(pic.acknowledge(), 0x38);
}

#[test]
fn special_fully_nested_lets_the_secondary_nest() {
    let mut pic = initialised([0, 0], 0x11);
    pulse(&mut pic, 12);
    assert_eq!(pic.acknowledge(), 0x3c);
    pulse(&mut pic, 8);
    assert!(pic.has_interrupt());
    assert_eq!(pic.acknowledge(), 0x38);
    assert_eq!(status(&mut pic, 0xa0).1, 0b1_0001);
}

#[test]
fn a_request_that_goes_away_is_spurious() {
    let mut pic = initialised([0, 0], 1);
    assert_eq!(pic.acknowledge(), 0x37);
    assert_eq!(status(&mut pic, 0x20), (0, 0));
    // Level-triggered 9 and 10 drop too late for the primary and in time for the secondary.
    pic.write(0x4d0, &[0xff, 0xff]);
    assert_eq!([read(&mut pic, 0x4d0), read(&mut pic, 0x4d1)], [0xf8, 0xde]);
    pic.set_level(10, true);
    pic.primary.acknowledge();
    pic.set_level(10, false);
    assert_eq!(pic.secondary.acknowledge(), (None, 0x3f));
    assert_eq!(status(&mut pic, 0x20).1, 1 << 2);
    assert_eq!(status(&mut pic, 0xa0).1, 0);
}

#[test]
fn a_level_asks_again_after_its_end() {
    let mut pic = initialised([0, 0], 1);
    pic.write(0x4d1, &[1 << 1]);
    pic.set_level(9, true);
    assert_eq!(pic.acknowledge(), 0x39);
    pic.write(0xa0, &[0x61]);
    assert!(pic.write(0x20, &[0x62]), "still asserted");
    assert_eq!(pic.acknowledge(), 0x39);
    pic.set_level(9, false);
    pic.write(0xa0, &[0x61]);
    assert!(!pic.write(0x20, &[0x62]));
}

#[test]
fn priorities_rotate() {
    let mut pic = initialised([0, 0], 1);
    pic.write(0x20, &[0xc4]);
    pulse(&mut pic, 5);
    pulse(&mut pic, 0);
    assert_eq!(pic.acknowledge(), 0x35, "5 is highest once 4 is lowest");
    pic.write(0x20, &[0xa0]);
    pulse(&mut pic, 5);
    pulse(&mut pic, 6);
    assert_eq!(pic.acknowledge(), 0x36, "rotated by the end of 5");
    pic.write(0x20, &[0xe6]);
    assert_eq!(pic.acknowledge(), 0x30);
}

#[test]
fn automatic_end_leaves_nothing_in_service() {
    let mut pic = initialised([0, 0], 3);
    pic.write(0x20, &[0x80]);
    pulse(&mut pic, 3);
    pulse(&mut pic, 14);
    assert_eq!(pic.acknowledge(), 0x3e);
    assert_eq!(pic.acknowledge(), 0x33);
    assert_eq!(status(&mut pic, 0x20), (0, 0));
    pulse(&mut pic, 3);
    pulse(&mut pic, 4);
    assert_eq!(pic.acknowledge(), 0x34, "3 became the lowest");
}

#[test]
fn special_mask_lets_lower_priorities_through() {
    let mut pic = initialised([0, 0], 1);
    pulse(&mut pic, 1);
    pulse(&mut pic, 6);
    assert_eq!(pic.acknowledge(), 0x31);
    assert!(!pic.has_interrupt());
    pic.write(0x21, &[1 << 1]);
    assert!(!pic.has_interrupt());
    assert!(pic.write(0x20, &[0x68]));
    assert_eq!(pic.acknowledge(), 0x36);
    pic.write(0x20, &[0x20]);
    assert_eq!(
        status(&mut pic, 0x20).1,
        1 << 1,
        "hidden from the non-specific end"
    );
    pic.write(0x20, &[0x48]);
    pic.write(0x20, &[0x20]);
    assert_eq!(status(&mut pic, 0x20).1, 0);
}

#[test]
fn a_poll_serves_without_an_acknowledge_cycle() {
    let mut pic = initialised([0, 0], 1);
    pic.write(0x20, &[0x0c]);
    assert_eq!(read(&mut pic, 0x20), 0);
    pulse(&mut pic, 11);
    pic.write(0x20, &[0x0c]);
    assert_eq!(read(&mut pic, 0x20), 0x82);
    pic.write(0xa0, &[0x0c]);
    assert_eq!(read(&mut pic, 0xa0), 0x83);
    assert!(!pic.has_interrupt());
    assert_eq!(status(&mut pic, 0xa0).1, 1 << 3);
}

#[test]
fn wide_accesses_reach_neighbouring_registers() {
    let mut pic = initialised([0, 0], 1);
    pic.write(0x20, &[0x0a, 0x5a]);
    pulse(&mut pic, 3);
    let mut data = [0xff; 4];
    pic.read(0x20, &mut data);
    assert_eq!(data, [1 << 3, 0x5a, 0xff, 0xff]);
}

#[derive(Debug, Clone)]
enum Action {
    Level(u32, bool),
    Acknowledge,
    Read(u16),
    Write(u16, u8),
}

fn action() -> impl Strategy<Value = Action> {
    let port = prop::sample::select(vec![0x20u16, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0xffff]);
    prop_oneof![
        (0u32..17, any::<bool>()).prop_map(|(irq, asserted)| Action::Level(irq, asserted)),
        Just(Action::Acknowledge),
        port.clone().prop_map(Action::Read),
        (port, any::<u8>()).prop_map(|(port, value)| Action::Write(port, value)),
    ]
}

proptest! {
    /// Whatever happens, accesses report the output as it stands, a vector belongs to a chip, and an
    /// interrupt that was announced and acknowledged at once is never spurious.
    #[test]
    fn holds_its_invariants(actions in prop::collection::vec(action(), 0..200)) {
        let mut pic = initialised([0, 0], 1);
        for action in actions {
            match action {
                Action::Level(irq, asserted) => pic.set_level(irq, asserted),
                Action::Acknowledge => {
                    let announced = pic.has_interrupt();
                    let primary = pic.primary.clone().acknowledge().0;
                    let secondary = pic.secondary.clone().acknowledge().0;
                    prop_assert_eq!(announced, primary.is_some());
                    prop_assert!(primary != Some(CASCADE) || secondary.is_some());
                    pic.acknowledge();
                }
                Action::Read(port) => {
                    let mut data = [0xff; 4];
                    let output = pic.read(port, &mut data);
                    prop_assert_eq!(output, pic.has_interrupt());
                }
                Action::Write(port, value) => {
                    let output = pic.write(port, &[value]);
                    prop_assert_eq!(output, pic.has_interrupt());
                }
            }
        }
    }

    /// Every edge on an unmasked input is delivered exactly once, highest priority first.
    #[test]
    fn loses_no_edge(irqs in prop::collection::btree_set((0u32..16).prop_filter("cascade", |i| *i != 2), 0..15)) {
        let mut pic = initialised([0, 0], 1);
        for irq in &irqs {
            pulse(&mut pic, *irq);
        }
        let mut served = Vec::new();
        while pic.has_interrupt() {
            let irq = u32::from(pic.acknowledge() - 0x30);
            served.push(irq);
            if irq >= 8 {
                pic.write(0xa0, &[0x20]);
            }
            pic.write(0x20, &[0x20]);
        }
        let mut expected: Vec<_> = irqs.into_iter().collect();
        expected.sort_by_key(|irq| if *irq >= 8 { 200 + irq } else { irq * 100 });
        prop_assert_eq!(served, expected);
    }
}
