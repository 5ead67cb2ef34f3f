//! The real-time clock.

use runtime::cmos::{self, Time};
use runtime::report::Test;
use runtime::time::{SECONDS, wait_until};
use runtime::{Machine, println};

pub const TESTS: &[(&str, Test)] = &[("rtc", date), ("rtc-flags", flags), ("rtc-memory", memory)];

/// The date is a possible one, goes on, and is printed as seconds since 1970 for the host to compare.
fn date(_: &Machine) {
    assert_ne!(
        cmos::read(cmos::STATUS_D) & 0x80,
        0,
        "the time is not valid"
    );
    let now = Time::now();
    assert!((2024..2200).contains(&now.year), "{now:?}");
    assert!((1..=12).contains(&now.month), "{now:?}");
    assert!((1..=31).contains(&now.day), "{now:?}");
    assert!(
        now.hour < 24 && now.minute < 60 && now.second < 60,
        "{now:?}"
    );
    println!("RTC {}", now.seconds_since_1970());
    let start = now.seconds_since_1970();
    assert!(
        wait_until(10 * SECONDS, || Time::now().seconds_since_1970() > start),
        "the clock stands still"
    );
}

/// The update-ended flag of register C comes once a second and is cleared by reading.
fn flags(_: &Machine) {
    const UPDATE_ENDED: u8 = 0x10;
    cmos::read(cmos::STATUS_C);
    assert!(
        wait_until(10 * SECONDS, || cmos::read(cmos::STATUS_C) & UPDATE_ENDED
            != 0),
        "no update-ended flag"
    );
    assert_eq!(
        cmos::read(cmos::STATUS_C) & UPDATE_ENDED,
        0,
        "not cleared by reading"
    );
}

/// Bytes beyond the clock's registers keep what is written.
fn memory(_: &Machine) {
    for index in [0x40, 0x51, 0x7f] {
        let before = cmos::read(index);
        for value in [0x00, 0x5a, 0xff] {
            cmos::write(index, value);
            assert_eq!(cmos::read(index), value, "CMOS byte {index:#x}");
        }
        cmos::write(index, before);
    }
}
