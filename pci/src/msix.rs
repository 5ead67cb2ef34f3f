//! Message-signalled interrupts with a table, MSI-X (PCI Express Base Specification 5.0, 6.1.4 and 7.7.2).
//!
//! The table and the pending bits lie behind one of the function's base address registers; the control
//! register is in its capability. A vector that its guest masks waits as a pending bit until it is
//! unmasked.
//!
//! Messages go to a [`MsiSink`] at the moment when they are due. With KVM that is one ioctl, which was
//! measured to cost no more than a write to an event that KVM has connected to a route. Events and routes
//! would each cost a grace period of the kernel besides: milliseconds for each vector that a guest
//! programs, and again at the machine's end.
//!
//! Shared by the function (vCPU threads, under its lock) and whoever interrupts. Each vector has a lock of
//! its own, under which its message is sent.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use bus::{Msi, MsiSink};

use crate::configuration::{CapabilityId, ConfigurationError, ConfigurationSpace};
use crate::lock::lock;
use crate::register::Register16;

/// The most vectors that a function can have (7.7.2.2).
const VECTORS_MAX: u16 = 2048;
/// Bytes of an entry of the table (7.7.2): address, data, vector control.
const ENTRY_BYTES: u64 = 16;
/// Bit of vector control: masked.
const VECTOR_MASKED: u32 = 1;

/// Bits of message control (7.7.2.2).
mod control {
    pub const FUNCTION_MASK: u16 = 1 << 14;
    pub const ENABLE: u16 = 1 << 15;
}

/// Where the table and the pending bits are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixPlace {
    /// Index of the base address register, 0 to 5.
    pub bar: u8,
    /// Offset of the table in bytes, a multiple of 8.
    pub table_offset: u32,
    /// Offset of the pending bits in bytes, a multiple of 8.
    pub pending_offset: u32,
}

/// The vectors of a function.
#[derive(Debug)]
pub struct Msix {
    sink: Arc<dyn MsiSink>,
    /// The bits of message control that a guest can write.
    control: AtomicU16,
    /// The function may send requests, of which messages are some (7.5.1.1.3).
    bus_master: AtomicBool,
    vectors: Box<[Mutex<Vector>]>,
}

#[derive(Debug)]
struct Vector {
    message: Msi,
    masked: bool,
    pending: bool,
}

impl Default for Vector {
    /// After a reset a vector is masked (7.7.2).
    fn default() -> Self {
        Self {
            message: Msi {
                address: 0,
                data: 0,
            },
            masked: true,
            pending: false,
        }
    }
}

impl Msix {
    /// `vectors` vectors, at least one and at most 2048, whose messages go to `sink`.
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Self {
        let vectors = vectors.clamp(1, VECTORS_MAX);
        Self {
            sink,
            control: AtomicU16::new(0),
            bus_master: AtomicBool::new(false),
            vectors: (0..vectors).map(|_| Mutex::default()).collect(),
        }
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.vectors.len()).unwrap_or(VECTORS_MAX)
    }

    /// Bytes of the table.
    pub fn table_bytes(&self) -> u64 {
        u64::from(self.vectors()).saturating_mul(ENTRY_BYTES)
    }

    /// Bytes of the pending bits.
    pub fn pending_bytes(&self) -> u64 {
        u64::from(self.vectors()).div_ceil(64).saturating_mul(8)
    }

    /// Appends the capability. Gives its message control register, which is kept here: in the
    /// configuration space it is the size of the table alone.
    pub(crate) fn add_capability(
        &self,
        space: &mut ConfigurationSpace,
        place: MsixPlace,
    ) -> Result<Register16, ConfigurationError> {
        let [table, pending] = [place.table_offset, place.pending_offset]
            .map(|offset| offset & !7 | u32::from(place.bar));
        let size = self.vectors().saturating_sub(1);
        let mut body = [0; 10];
        let fields = size
            .to_le_bytes()
            .into_iter()
            .chain(table.to_le_bytes())
            .chain(pending.to_le_bytes());
        body.iter_mut()
            .zip(fields)
            .for_each(|(place, byte)| *place = byte);
        let offset = space.add_capability(CapabilityId::MsiX, &body, &[])?;
        Ok(Register16 { offset })
    }

    /// Whether the guest uses MSI-X in place of the pin.
    pub fn is_enabled(&self) -> bool {
        self.control() & control::ENABLE != 0
    }

    /// Sends the message of `vector`, or makes it pending while it is masked or cannot be sent. Nothing while MSI-X is
    /// disabled, or for a vector that is not there.
    pub fn fire(&self, vector: u16) {
        if let Some(vector) = self.vectors.get(usize::from(vector)) {
            let mut vector = lock(vector);
            vector.pending = true;
            self.settle(&mut vector);
        }
    }

    /// The bits of message control that a guest can write.
    pub(crate) fn control(&self) -> u16 {
        self.control.load(Ordering::Acquire)
    }

    /// Takes a new value of message control.
    pub(crate) fn set_control(&self, value: u16) {
        let writable = control::FUNCTION_MASK | control::ENABLE;
        self.control.store(value & writable, Ordering::Release);
        self.settle_all();
    }

    /// Takes whether the function may send requests. While it may not, messages wait as pending bits.
    pub(crate) fn set_bus_master(&self, bus_master: bool) {
        if self.bus_master.swap(bus_master, Ordering::AcqRel) != bus_master {
            self.settle_all();
        }
    }

    fn settle_all(&self) {
        // Whoever fires at this moment has either seen the new value, or its pending bit is seen here:
        // the vector's lock is in between.
        for vector in &self.vectors {
            self.settle(&mut lock(vector));
        }
    }

    /// Sends what is pending and not masked; forgets what is pending while MSI-X is disabled.
    fn settle(&self, vector: &mut Vector) {
        let control = self.control();
        if control & control::ENABLE == 0 {
            vector.pending = false;
        } else if vector.pending
            && !vector.masked
            && control & control::FUNCTION_MASK == 0
            && self.bus_master.load(Ordering::Acquire)
        {
            vector.pending = false;
            self.sink.send(vector.message);
        }
    }

    /// Answers a read of the table, of an aligned doubleword or quadword (6.1.4.2). Others read as zeros.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (offset, data) in doublewords(offset, data) {
            if let Some((vector, field)) = self.field(offset) {
                let vector = lock(vector);
                let value = match field {
                    Field::AddressLow => low_half(vector.message.address),
                    Field::AddressHigh => low_half(vector.message.address >> 32),
                    Field::Data => vector.message.data,
                    Field::Control => u32::from(vector.masked),
                };
                data.copy_from_slice(&value.to_le_bytes());
            }
        }
    }

    /// Takes a write to the table, of an aligned doubleword or quadword; others do nothing.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut copy = [0; 8];
        let Some(copy) = copy.get_mut(..data.len()) else {
            return;
        };
        copy.copy_from_slice(data);
        for (offset, data) in doublewords(offset, copy) {
            let Ok(bytes) = <[u8; 4]>::try_from(&*data) else {
                continue;
            };
            let value = u32::from_le_bytes(bytes);
            if let Some((vector, field)) = self.field(offset) {
                let mut vector = lock(vector);
                let address = &mut vector.message.address;
                match field {
                    // The two lowest bits are zero (7.7.2).
                    Field::AddressLow => {
                        *address = *address & !0xffff_ffff | u64::from(value & !3);
                    }
                    Field::AddressHigh => {
                        *address = *address & 0xffff_ffff | u64::from(value) << 32;
                    }
                    Field::Data => vector.message.data = value,
                    Field::Control => {
                        vector.masked = value & VECTOR_MASKED != 0;
                        self.settle(&mut vector);
                    }
                }
            }
        }
    }

    /// Answers a read of the pending bits, of an aligned doubleword or quadword. They cannot be written.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for (offset, data) in doublewords(offset, data) {
            let first = usize::try_from(offset.saturating_mul(8)).unwrap_or(usize::MAX);
            let vectors = self.vectors.iter().skip(first).take(32);
            let bits = (0_u32..).zip(vectors).fold(0, |bits, (bit, vector)| {
                bits | u32::from(lock(vector).pending) << bit
            });
            data.copy_from_slice(&bits.to_le_bytes());
        }
    }

    /// Everything is as before the guest's first access.
    pub(crate) fn reset(&self) {
        self.set_control(0);
        self.set_bus_master(false);
        for vector in &self.vectors {
            *lock(vector) = Vector::default();
        }
    }

    fn field(&self, offset: u64) -> Option<(&Mutex<Vector>, Field)> {
        let index = usize::try_from(offset.checked_div(ENTRY_BYTES)?).ok()?;
        let field = match offset % ENTRY_BYTES {
            0 => Field::AddressLow,
            4 => Field::AddressHigh,
            8 => Field::Data,
            _ => Field::Control,
        };
        Some((self.vectors.get(index)?, field))
    }
}

/// A doubleword of an entry.
enum Field {
    AddressLow,
    AddressHigh,
    Data,
    Control,
}

/// The doublewords of an access that is aligned and has four or eight bytes; none of another.
fn doublewords(offset: u64, data: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    let length = data.len();
    let aligned = matches!(length, 4 | 8)
        && u64::try_from(length).is_ok_and(|length| offset.is_multiple_of(length));
    let count = if aligned { 2 } else { 0 };
    [offset, offset.saturating_add(4)]
        .into_iter()
        .zip(data.chunks_exact_mut(4))
        .take(count)
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests;
