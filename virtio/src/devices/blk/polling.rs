//! How long a queue's thread looks for the next request by itself before it sleeps.
//!
//! Sleeping and being woken costs more time than a busy driver lets pass between two requests: a doorbell, a
//! wake-up by the host's scheduler, a system call or two. So the thread looks at the ring for a short time
//! first. Where that was in vain a few times in a row, most sleeps come at once: a driver that thinks, or
//! waits for an interrupt, costs little more than without.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long it looks: about what a sleep and a wake-up cost.
const WINDOW: Duration = Duration::from_micros(50);
/// After so often in vain in a row only some times are tried.
const IN_VAIN_IN_A_ROW: u32 = 4;
/// Of so many, one is tried.
const TRIED_OF: u32 = 32;

/// Whether it is worth it, by what the last times were.
#[derive(Debug)]
pub(super) struct Polling {
    /// Where there is one processor, the driver needs it.
    possible: bool,
    in_vain: u32,
    looks: Looks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// There was a request just now.
    Busy,
    /// Since then.
    Since(Instant),
    /// Not any more, until there is a request.
    No,
}

/// Whether there is a processor for it. What the host says is asked once: it costs the reading of files.
fn is_possible() -> bool {
    static HAS_SEVERAL: OnceLock<bool> = OnceLock::new();
    // Where the driver itself does the work it cannot come with a request meanwhile.
    #[cfg(any(test, fuzzing))]
    if crate::worker::driven::is_on() {
        return false;
    }
    *HAS_SEVERAL.get_or_init(|| thread::available_parallelism().is_ok_and(|count| count.get() > 1))
}

impl Polling {
    pub(super) fn new() -> Self {
        Self {
            possible: is_possible(),
            in_vain: 0,
            looks: Looks::Busy,
        }
    }

    /// There was a request, or a completion, which a request often follows.
    pub(super) fn note_event(&mut self) {
        if let Looks::Since(_) = self.looks {
            self.in_vain = 0;
        }
        self.looks = Looks::Busy;
    }

    /// Whether to look on, when there is no request at `now`.
    pub(super) fn goes_on(&mut self, now: Instant) -> bool {
        match self.looks {
            Looks::No => false,
            Looks::Since(start) if now.saturating_duration_since(start) < WINDOW => true,
            Looks::Since(_) => {
                self.in_vain = self.in_vain.saturating_add(1);
                self.looks = Looks::No;
                false
            }
            Looks::Busy => {
                let is_tried = self.is_tried();
                self.looks = match is_tried {
                    true => Looks::Since(now),
                    false => Looks::No,
                };
                is_tried
            }
        }
    }

    fn is_tried(&mut self) -> bool {
        if !self.possible {
            return false;
        }
        if self.in_vain < IN_VAIN_IN_A_ROW {
            return true;
        }
        self.in_vain = self.in_vain.saturating_add(1);
        self.in_vain.is_multiple_of(TRIED_OF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it looks at all when there was a request and then none for `pause`.
    fn looks(polling: &mut Polling, now: &mut Instant, pause: Duration) -> bool {
        polling.note_event();
        let looks = polling.goes_on(*now);
        *now += pause;
        if pause >= WINDOW {
            assert!(!polling.goes_on(*now), "it has to sleep");
        }
        looks
    }

    fn polling() -> Polling {
        Polling {
            possible: true,
            ..Polling::new()
        }
    }

    #[test]
    fn what_comes_soon_is_waited_for() {
        let (mut polling, mut now) = (polling(), Instant::now());
        for _ in 0..100 {
            assert!(looks(&mut polling, &mut now, WINDOW / 2));
        }
    }

    #[test]
    fn what_never_comes_soon_is_seldom_waited_for() {
        let (mut polling, mut now) = (polling(), Instant::now());
        let count = (0..320)
            .filter(|_| looks(&mut polling, &mut now, 2 * WINDOW))
            .count();
        assert!((10..=20).contains(&count), "{count} of 320");
        // Until it comes soon again.
        while !looks(&mut polling, &mut now, WINDOW / 2) {}
        assert!(looks(&mut polling, &mut now, WINDOW / 2));
    }

    #[test]
    fn one_processor_is_not_kept_busy() {
        let mut polling = Polling {
            possible: false,
            ..Polling::new()
        };
        assert!(!polling.goes_on(Instant::now()));
    }
}
