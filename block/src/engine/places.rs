//! Finding out where in a qcow2 image's file a transfer's data is, on the thread that submits.
//!
//! That is a look at tables in memory, as a rule. Where it takes the time of a read from a disk, the tables
//! are more than memory is kept for, or somebody holds them up: the requests of the next moment then go
//! to threads, which can wait side by side.

use std::time::{Duration, Instant};

use crate::qcow2::Qcow2Image;
use crate::request::Direction;

/// A look that took as long was held up.
const HELD_UP: Duration = Duration::from_micros(100);
/// After so many of them in a row others are not tried for a while.
const HELD_UP_IN_A_ROW: u32 = 3;
/// For so long.
const DETOUR: Duration = Duration::from_millis(20);

/// How the last looks went.
#[derive(Debug, Default)]
pub(super) struct Places {
    held_up: u32,
    detour_until: Option<Instant>,
}

impl Places {
    /// The place of a transfer, held until it is released; `None` where the request needs more of the
    /// format than that.
    pub(super) fn hold(
        &mut self,
        image: &Qcow2Image,
        direction: Direction,
        offset: u64,
        length: u64,
    ) -> Option<u64> {
        let writes = match direction {
            Direction::Read => false,
            Direction::Write { durable: false } => true,
            // Tables that are not in the file yet have to be made durable with it.
            Direction::Write { durable: true } => return None,
        };
        let started = Instant::now();
        if self.detour_until.is_some_and(|until| started < until) {
            return None;
        }
        let place = image.hold(offset, length, writes);
        self.note(started, Instant::now());
        place
    }

    fn note(&mut self, started: Instant, now: Instant) {
        self.held_up = match now.duration_since(started) >= HELD_UP {
            true => self.held_up.saturating_add(1),
            false => 0,
        };
        if self.held_up >= HELD_UP_IN_A_ROW {
            self.held_up = 0;
            self.detour_until = now.checked_add(DETOUR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_a_detour_when_several_looks_are_held_up() {
        let mut places = Places::default();
        let start = Instant::now();
        for (microseconds, detour) in [(200, false), (200, false), (1, false), (200, false)] {
            places.note(start, start + Duration::from_micros(microseconds));
            assert_eq!(places.detour_until.is_some(), detour);
        }
        places.note(start, start + HELD_UP);
        places.note(start, start + HELD_UP);
        assert_eq!(places.detour_until, Some(start + HELD_UP + DETOUR));
    }
}
