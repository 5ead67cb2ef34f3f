//! Guest-physical memory: RAM of the host, device registers, and the atomic operations on RAM.
//!
//! The one place with unsafe code. Other vCPUs and devices write to the same bytes at any moment, so RAM is
//! reached through raw pointers with volatile or atomic accesses, in the widest naturally aligned pieces;
//! what a processor reads or writes in one piece is one piece here up to eight bytes.
#![expect(
    unsafe_code,
    reason = "guest memory is shared with code that the compiler does not see"
)]

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::word::{at, index, length};

/// Guest-physical memory, lent for the time of one instruction.
///
/// Locked read-modify-write instructions use the host's atomic ones. Only an operand that crosses a cache
/// line has no such: then a lock that all vCPUs share keeps two completions apart, but not a completion
/// and a vCPU that runs.
///
/// # Safety
///
/// A pointer that [`GuestMemory::ram`] gives is valid for reads and writes of the length that it was asked
/// for until `self` is used mutably or goes, and no Rust reference to those bytes exists meanwhile.
pub unsafe trait GuestMemory {
    /// The RAM at the guest-physical `address`, if all of `length` bytes there are RAM in one piece.
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>>;

    /// Notes that `length` bytes at `address` were written, for whoever tracks dirty pages.
    fn mark_written(&self, address: u64, length: usize) {
        let _ = (address, length);
    }

    /// Reads from an address that is not RAM: 1 to 8 bytes; all ones where nothing answers.
    fn mmio_read(&mut self, address: u64, data: &mut [u8]);

    /// Writes to an address that is not RAM: 1 to 8 bytes.
    fn mmio_write(&mut self, address: u64, data: &[u8]);
}

/// A part of an access that is in one page.
#[derive(Debug, Clone, Copy, Default)]
pub struct Piece {
    /// Guest-physical address.
    pub physical: u64,
    /// How many bytes.
    pub bytes: usize,
}

/// The pages that an access can touch: the longest is that of an XSAVE area, of less than 12 KiB.
const PIECES_MAX: usize = 4;

/// All parts of an access.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pieces {
    pieces: [Piece; PIECES_MAX],
    count: usize,
}

impl Pieces {
    /// Adds a part; none when it is one too many.
    pub fn push(&mut self, piece: Piece) -> Option<()> {
        *self.pieces.get_mut(self.count)? = piece;
        self.count = self.count.saturating_add(1);
        Some(())
    }

    /// Takes all parts away.
    pub const fn clear(&mut self) {
        self.count = 0;
    }
}

impl Deref for Pieces {
    type Target = [Piece];

    fn deref(&self) -> &[Piece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }
}

/// Reads translated memory.
pub fn read_pieces(memory: &mut dyn GuestMemory, pieces: &[Piece], data: &mut [u8]) {
    let mut rest = data;
    for piece in pieces {
        let (now, later) = rest.split_at_mut(piece.bytes.min(rest.len()));
        read(memory, piece.physical, now);
        rest = later;
    }
}

/// Writes `data` from byte `offset` of translated memory.
pub fn write_pieces(memory: &mut dyn GuestMemory, pieces: &[Piece], offset: usize, data: &[u8]) {
    let (mut skipped, mut rest) = (offset, data);
    for piece in pieces {
        let here = skipped.min(piece.bytes);
        skipped = skipped.saturating_sub(here);
        let (now, later) = rest.split_at(piece.bytes.saturating_sub(here).min(rest.len()));
        if !now.is_empty() {
            write(memory, piece.physical.wrapping_add(length(here)), now);
        }
        rest = later;
    }
}

/// The widest access that a bus takes.
const BUS_BYTES: usize = 8;

/// Reads `data` at `address`, all in one page.
pub fn read(memory: &mut dyn GuestMemory, address: u64, data: &mut [u8]) {
    match memory.ram(address, data.len()) {
        Some(from) => copy_out(from, data),
        None => {
            let mut address = address;
            for piece in data.chunks_mut(BUS_BYTES) {
                memory.mmio_read(address, piece);
                address = address.wrapping_add(length(piece.len()));
            }
        }
    }
}

/// Writes `data` at `address`, all in one page.
pub fn write(memory: &mut dyn GuestMemory, address: u64, data: &[u8]) {
    match memory.ram(address, data.len()) {
        Some(to) => {
            copy_in(to, data);
            memory.mark_written(address, data.len());
        }
        None => {
            let mut address = address;
            for piece in data.chunks(BUS_BYTES) {
                memory.mmio_write(address, piece);
                address = address.wrapping_add(length(piece.len()));
            }
        }
    }
}

/// A page of RAM.
#[derive(Clone, Copy)]
pub struct RamPage<'a> {
    start: NonNull<u8>,
    memory: &'a dyn GuestMemory,
    physical: u64,
}

impl<'a> RamPage<'a> {
    /// The page at the guest-physical address `physical`, a multiple of its size; none where that is no RAM.
    pub fn new(memory: &'a dyn GuestMemory, physical: u64) -> Option<Self> {
        let start = memory.ram(physical, PAGE_BYTES)?;
        Some(Self {
            start,
            memory,
            physical,
        })
    }

    /// The guest-physical address of the byte to which `linear` points.
    pub const fn physical(&self, linear: u64) -> u64 {
        self.physical | linear & PAGE_OFFSET
    }

    /// The bytes from `linear` on, as far as the page goes.
    fn from(&self, linear: u64) -> (NonNull<u8>, usize) {
        let offset = index(linear & PAGE_OFFSET);
        // SAFETY: the offset is within the page, all of which is RAM; `memory` is borrowed for as long as
        // the page lives, so that nobody uses it mutably.
        let from = unsafe { self.start.add(offset) };
        (from, PAGE_BYTES.saturating_sub(offset))
    }

    /// Reads `data` from where `linear` points; what is beyond the page stays as it is.
    pub fn read(&self, linear: u64, data: &mut [u8]) {
        let (from, most) = self.from(linear);
        let count = data.len().min(most);
        if let Some(data) = data.get_mut(..count) {
            copy_out(from, data);
        }
    }

    /// Writes `data` to where `linear` points, as far as the page goes.
    pub fn write(&self, linear: u64, data: &[u8]) {
        let (to, most) = self.from(linear);
        if let Some(data) = data.get(..data.len().min(most)) {
            copy_in(to, data);
            self.memory.mark_written(self.physical(linear), data.len());
        }
    }
}

/// The RAM of a memory and nothing else: what is elsewhere is not accessed.
pub struct RamOnly<'a>(pub &'a dyn GuestMemory);

// SAFETY: the pointers are those of the other memory, which is borrowed for as long as this lives.
unsafe impl GuestMemory for RamOnly<'_> {
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>> {
        self.0.ram(address, length)
    }

    fn mark_written(&self, address: u64, length: usize) {
        self.0.mark_written(address, length);
    }

    fn mmio_read(&mut self, _address: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn mmio_write(&mut self, _address: u64, _data: &[u8]) {}
}

/// Bytes of a page.
const PAGE_BYTES: usize = 4096;
/// The bits of an address that are within a page.
const PAGE_OFFSET: u64 = 0xfff;

/// Reads a naturally aligned page-table entry of 4 or 8 bytes.
pub fn read_entry(memory: &dyn GuestMemory, address: u64, bytes: usize) -> Option<u64> {
    let pointer = memory.ram(address, bytes)?;
    if !pointer.as_ptr().addr().is_multiple_of(bytes) {
        return None;
    }
    if bytes == 4 {
        // SAFETY: the trait's word that 4 bytes are there; aligned as checked; all accesses are atomic or
        // by other processors.
        let entry = unsafe { AtomicU32::from_ptr(pointer.as_ptr().cast()) };
        return Some(u64::from(entry.load(Ordering::Acquire)));
    }
    // SAFETY: as above, for 8 bytes.
    let entry = unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) };
    Some(entry.load(Ordering::Acquire))
}

/// Sets `bits` in the page-table entry at `address` if it still is `entry`; false when it is not.
pub fn set_entry_bits(
    memory: &dyn GuestMemory,
    address: u64,
    bytes: usize,
    entry: u64,
    bits: u64,
) -> bool {
    let Some(pointer) = memory.ram(address, bytes) else {
        return false;
    };
    let done = if bytes == 4 {
        let [old, new] = [entry, entry | bits].map(crate::word::low_32);
        // SAFETY: the trait's word that 4 bytes are there; `read_entry` found the place aligned.
        let entry = unsafe { AtomicU32::from_ptr(pointer.as_ptr().cast()) };
        entry
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    } else {
        let new = entry | bits;
        // SAFETY: as above, for 8 bytes.
        let place = unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) };
        place
            .compare_exchange(entry, new, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    };
    if done {
        memory.mark_written(address, bytes);
    }
    done
}

/// What a compare-exchange found in memory: the operand's old value, equal to the expected one exactly if
/// the new one was stored.
pub type Found<T> = Option<T>;

/// Compares 8 bytes of RAM with `old` and stores `new` if they are equal, atomically. None when that is
/// not RAM or has no atomic access: not aligned.
pub fn compare_exchange_8(
    memory: &dyn GuestMemory,
    address: u64,
    old: u64,
    new: u64,
) -> Found<u64> {
    let pointer = memory.ram(address, 8)?;
    if !pointer.as_ptr().addr().is_multiple_of(8) {
        return None;
    }
    // SAFETY: the trait's word that 8 bytes are there; aligned as checked.
    let place = unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) };
    let found = match place.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(found) | Err(found) => found,
    };
    if found == old {
        memory.mark_written(address, 8);
    }
    Some(found)
}

/// As [`compare_exchange_8`], for 16 bytes. None also on a host without CMPXCHG16B.
pub fn compare_exchange_16(
    memory: &dyn GuestMemory,
    address: u64,
    old: u128,
    new: u128,
) -> Found<u128> {
    let pointer = memory.ram(address, 16)?;
    if !pointer.as_ptr().addr().is_multiple_of(16) || !is_x86_feature_detected!("cmpxchg16b") {
        return None;
    }
    let half = |value: u128, offset| u64::from_le_bytes(at(&value.to_le_bytes(), offset));
    let (mut low, mut high) = (half(old, 0), half(old, 8));
    // The standard library's function wants a symbol that is not linked in a build without optimisation.
    // SAFETY: the trait's word that 16 bytes are there; aligned, and the host has the instruction, as
    // checked. RBX, which cannot be an operand, is put back; the others are named, or they could be it.
    unsafe {
        std::arch::asm!(
            "xchg rsi, rbx",
            "lock cmpxchg16b [rdi]",
            "mov rbx, rsi",
            inout("rsi") half(new, 0) => _,
            in("rdi") pointer.as_ptr(),
            in("rcx") half(new, 8),
            inout("rax") low,
            inout("rdx") high,
            options(nostack),
        );
    }
    let found = u128::from(high) << 64 | u128::from(low);
    if found == old {
        memory.mark_written(address, 16);
    }
    Some(found)
}

/// Keeps two read-modify-write completions apart that have no atomic access.
pub fn one_at_a_time<T>(act: impl FnOnce() -> T) -> T {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    act()
}

/// The widest power of two, at most 8, that `address` is a multiple of and `left` has room for.
fn step(address: usize, left: usize) -> usize {
    [8, 4, 2]
        .into_iter()
        .find(|width| address.is_multiple_of(*width) && left >= *width)
        .unwrap_or(1)
}

/// Copies out of RAM.
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one of four, by its width"
)]
fn copy_out(from: NonNull<u8>, data: &mut [u8]) {
    let from = from.as_ptr();
    let mut done = 0;
    while done < data.len() {
        let source = from.wrapping_add(done);
        let width = step(source.addr(), data.len().saturating_sub(done));
        // SAFETY: `done + width` is at most the length that the caller of `ram` asked for; aligned as
        // `step` says; any bits are an integer.
        let value = unsafe {
            match width {
                8 => source.cast::<u64>().read_volatile(),
                4 => u64::from(source.cast::<u32>().read_volatile()),
                2 => u64::from(source.cast::<u16>().read_volatile()),
                _ => u64::from(source.read_volatile()),
            }
        };
        crate::word::put(
            data,
            done,
            value.to_le_bytes().get(..width).unwrap_or_default(),
        );
        done = done.saturating_add(width);
    }
}

/// Copies into RAM.
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "one of four, by its width"
)]
fn copy_in(to: NonNull<u8>, data: &[u8]) {
    let to = to.as_ptr();
    let mut done = 0;
    while done < data.len() {
        let target = to.wrapping_add(done);
        let width = step(target.addr(), data.len().saturating_sub(done));
        // SAFETY: as in `copy_out`.
        unsafe {
            match width {
                8 => target
                    .cast::<u64>()
                    .write_volatile(u64::from_le_bytes(at(data, done))),
                4 => target
                    .cast::<u32>()
                    .write_volatile(u32::from_le_bytes(at(data, done))),
                2 => target
                    .cast::<u16>()
                    .write_volatile(u16::from_le_bytes(at(data, done))),
                _ => target.write_volatile(u8::from_le_bytes(at(data, done))),
            }
        };
        done = done.saturating_add(width);
    }
}
