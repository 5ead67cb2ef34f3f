use super::*;
use crate::feature;
use crate::testing::conformance::{self, Subject};
use crate::testing::{Buffer, Driver, SECOND_REGION, status};

fn exercise(driver: &mut Driver) {
    let buffer = driver.place(&[0; 64]);
    let written = driver.request(0, &[Buffer::Writable(buffer, 64)]);
    assert_eq!(written, 64);
    let random = driver.fetch(buffer, 64);
    assert!(random.iter().filter(|&&byte| byte != 0).count() > 40);
}

#[test]
fn conforms() {
    conformance::run(&Subject {
        make: &|| Box::new(Rng::new()),
        features: 0,
        eager_queue: 0,
        exercise: &exercise,
    });
}

#[test]
fn a_request_gets_a_bounded_number_of_bytes() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.start(0, 8);
    let most = u32::try_from(REQUEST_MAX_BYTES).unwrap();
    let address = SECOND_REGION - 0x1000;
    // Beyond the end of one mapping and the start of the next.
    let written = driver.request(
        0,
        &[
            Buffer::Writable(address, 0x2000),
            Buffer::Writable(SECOND_REGION + 0x2000, 0x4_0000),
        ],
    );
    assert_eq!(written, most);
    let end = driver.fetch(SECOND_REGION + 0x2000 + u64::from(most) - 0x2000, 0x1000);
    assert!(end.iter().all(|&byte| byte == 0));
    let both_sides = driver.fetch(SECOND_REGION - 32, 64);
    assert!(both_sides[..32].iter().any(|&byte| byte != 0));
    assert!(both_sides[32..].iter().any(|&byte| byte != 0));
}

#[test]
fn a_request_without_room_gets_nothing() {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.start(feature::RING_EVENT_IDX, 8);
    let buffer = driver.allocate(16);
    assert_eq!(driver.request(0, &[Buffer::Readable(buffer, 16)]), 0);
}

#[test]
fn each_used_buffer_interrupts_until_the_driver_says_otherwise() {
    for ring in [0, feature::RING_PACKED] {
        let mut driver = Driver::new(Box::new(Rng::new()));
        driver.start(ring, 8);
        exercise(&mut driver);
        assert_eq!(driver.wait_interrupt(), 1);
        driver.queues[0].set_no_interrupt(true);
        exercise(&mut driver);
        driver.transport.pause();
        assert!(!driver.interrupted());
    }
}

/// Doorbells and interrupts only where the event index asks for them: one that is lost is a hang.
#[test]
fn no_event_is_lost_under_load() {
    for ring in [0, feature::RING_PACKED] {
        serve_by_events(ring);
    }
}

fn serve_by_events(ring: u64) {
    let mut driver = Driver::new(Box::new(Rng::new()));
    driver.start(ring | feature::RING_EVENT_IDX, 16);
    let buffer = driver.allocate(64);
    let (mut rung, mut slept) = (0, 0);
    for round in 0..3000_u32 {
        let batch = round % 13 + 1;
        for _ in 0..batch {
            driver.queues[0].add(&[Buffer::Writable(buffer, 1)]);
        }
        if driver.queues[0].wants_doorbell() {
            driver.kick(0);
            rung += 1;
        }
        let mut left = batch;
        while left > 0 {
            match driver.queues[0].take_used() {
                Some((_, written)) => {
                    assert_eq!(written, 1);
                    left -= 1;
                }
                // It has asked for an interrupt at the next one; that may have come meanwhile.
                None if !driver.queues[0].has_used() => {
                    driver.wait_interrupt();
                    slept += 1;
                }
                None => {}
            }
        }
    }
    assert!(
        rung > 0 && slept > 0,
        "{rung} doorbells, {slept} interrupts"
    );
    assert_eq!(driver.status() & status::NEEDS_RESET, 0);
}
