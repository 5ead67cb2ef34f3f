//! What the targets share: the fuzzer's bytes as choices and numbers, and a machine's far ends.

pub mod virtio;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bus::{Doorbell, DoorbellRegistry, IrqLine, Msi, MsiSink};
use devices::Clock;
use vmm_sys_util::eventfd::EventFd;

/// Bytes of the fuzzer's, one after the other; zeros behind the last.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// The next two bytes.
    pub fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next four bytes.
    pub fn double(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// The next eight bytes.
    pub fn quad(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number that is more often small, or near an edge, than not.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..0x80 => u64::from(small),
            bit @ 0x80..0xc0 => 1 << (bit & 63),
            below @ 0xc0..0xe0 => u64::MAX - u64::from(below & 31),
            0xe0..0xf0 => u64::from(self.word()),
            0xf0..0xf8 => u64::from(self.double()),
            _ => self.quad(),
        }
    }

    /// One of `choices`.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    /// At most `most` bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Takes interrupts of all kinds and doorbells.
#[derive(Debug, Default)]
pub struct Sink;

impl IrqLine for Sink {
    fn set_level(&self, _asserted: bool) {}
}

impl MsiSink for Sink {
    fn send(&self, _message: Msi) {}
}

impl DoorbellRegistry for Sink {
    fn register(&self, _doorbell: Doorbell, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn unregister(&self, _doorbell: Doorbell, _event: &EventFd) -> io::Result<()> {
        Ok(())
    }
}

/// What the C library has of this name, for everything in the process: randomness, the same each time, so that
/// an input does what it did when it was found.
///
/// # Safety
///
/// There are `length` bytes at `buffer` to be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    _flags: libc::c_uint,
) -> libc::ssize_t {
    // SAFETY: the caller promises that the bytes are there.
    unsafe { std::ptr::write_bytes(buffer.cast::<u8>(), 0x5a, length) };
    libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX)
}

/// A clock that an input moves on.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Lets this time pass.
    pub fn advance_ns(&self, nanoseconds: u64) {
        self.0.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn monotonic_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn utc(&self) -> Duration {
        Duration::from_secs(1_700_000_000) + Duration::from_nanos(self.monotonic_ns())
    }
}
