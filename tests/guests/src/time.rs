//! Waiting with an end: measured in cycles of the time stamp counter, whose frequency is not needed to
//! be known, because the limits are generous.

/// More than a second on every machine that runs at 1 to 5 GHz.
pub const SECONDS: u64 = 5_000_000_000;
/// More than a millisecond on every machine that runs at 1 to 5 GHz.
pub const MILLISECONDS: u64 = SECONDS / 1000;

/// The time stamp counter.
pub fn cycles() -> u64 {
    // SAFETY: the instruction only reads a counter; CR4.TSD is clear, so that ring 3 may.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Spins until `condition` holds, at most for `limit` cycles; whether it came to hold.
pub fn wait_until(limit: u64, mut condition: impl FnMut() -> bool) -> bool {
    let start = cycles();
    loop {
        if condition() {
            return true;
        }
        if cycles().wrapping_sub(start) > limit {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Spins for `duration` cycles.
pub fn spin(duration: u64) {
    wait_until(duration, || false);
}
