//! What a guest, or fio, asks of a disk, and what comes out.

use super::tsc::Tsc;

/// Requests of one kind, so many at a time in each queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) writes: bool,
    /// Of 4 KiB at random places, or else of 1 MiB one after the other.
    pub(super) is_random: bool,
    pub(super) depth: u32,
}

const fn random(writes: bool, depth: u32) -> Load {
    Load {
        writes,
        is_random: true,
        depth,
    }
}

const fn sequential(writes: bool) -> Load {
    Load {
        writes,
        is_random: false,
        depth: 4,
    }
}

/// All that are measured, in this order.
pub(super) const LOADS: [Load; 8] = [
    random(false, 1),
    random(false, 32),
    random(false, 256),
    random(true, 1),
    random(true, 32),
    random(true, 256),
    sequential(false),
    sequential(true),
];

impl Load {
    /// For people.
    pub(super) fn name(&self) -> String {
        let kind = if self.writes { "write" } else { "read" };
        match self.is_random {
            true => format!("4 KiB {kind}, depth {}", self.depth),
            false => format!("1 MiB {kind}, depth {}", self.depth),
        }
    }

    /// For the guest's test `blk-bench`.
    pub(super) fn guest_name(&self) -> String {
        let kind = if self.writes { 'w' } else { 'r' };
        let size = if self.is_random { "4k" } else { "1m" };
        format!("{kind}{size}@{}", self.depth)
    }

    /// Whether it has targets.
    pub(super) fn is_judged(&self) -> bool {
        self.is_random && self.depth == 32
    }
}

/// What one load gave in one round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    /// Requests in a second.
    pub(super) rate: f64,
    /// Time within which half of the requests were done, 99 %, and 99.9 %, in microseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    /// Of all threads but those that run the guest, in microseconds a request.
    pub(super) cpu_time: f64,
    /// Doorbells a request.
    pub(super) doorbells: f64,
}

impl Measured {
    /// From the guest's line `END name …`, and the processor time in microseconds; `None` where the guest
    /// skipped the load, or nothing was done in time.
    pub(super) fn parse(output: &str, name: &str, cpu_time: f64, tsc: Tsc) -> Option<Self> {
        let head = format!("END {name} ");
        let line = output
            .lines()
            .find_map(|line| line.trim().strip_prefix(head.as_str()))?;
        let mut numbers = line
            .split_ascii_whitespace()
            .map_while(|word| word.parse::<f64>().ok());
        let mut next = || numbers.next();
        let (measured, cycles, all, doorbells) = (next()?, next()?, next()?, next()?);
        if measured == 0.0 {
            return None;
        }
        let microseconds = |cycles: f64| cycles / tsc.cycles_per_microsecond();
        Some(Self {
            rate: measured / microseconds(cycles) * 1e6,
            p50: microseconds(next()?),
            p99: microseconds(next()?),
            p999: microseconds(next()?),
            cpu_time: cpu_time / all,
            doorbells: doorbells / all,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_line_is_read() {
        let tsc = Tsc::with_cycles_per_microsecond(2000.0);
        let output = "BEGIN r4k@32\r\nEND r4k@32 100 200000 132 66 2000 4000 8000 9000\r\nDONE";
        let measured = Measured::parse(output, "r4k@32", 66.0, tsc).unwrap();
        assert_eq!(
            measured,
            Measured {
                rate: 1e6,
                p50: 1.0,
                p99: 2.0,
                p999: 4.0,
                cpu_time: 0.5,
                doorbells: 0.5,
            }
        );
        assert_eq!(Measured::parse(output, "r4k@3", 66.0, tsc), None);
    }
}
