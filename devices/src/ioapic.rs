//! The I/O APIC: 24 interrupt pins, each with an entry that says which message to send.
//!
//! Intel 82093AA datasheet (order number 290566), section 3 "Register description"; the message format
//! of Intel SDM volume 3, 12.11; version 0x20, which adds the EOI register (Intel ICH4 datasheet 9.5.6).
//!
//! A pure state machine: the machine's interrupt controller owns it behind its lock, feeds it levels, and
//! sends the messages that it returns. The owner also places it on the memory-mapped bus, since only the
//! owner can deliver what a write sets free: [`IoApic::write`] returns it.
//!
//! ```text
//! 0x00  IOREGSEL  which register IOWIN shows
//! 0x10  IOWIN     0x00 identification, 0x01 version, 0x02 arbitration, 0x10 + 2n and 0x11 + 2n entry n
//! 0x40  EOI       write only: ends level interrupts of a vector
//! ```

use arch::layout::{IOAPIC_ID, gsi};
use bus::Msi;

mod msi_list;

pub use msi_list::MsiList;

const REGISTER_SELECT: u64 = 0x00;
const REGISTER_WINDOW: u64 = 0x10;
const REGISTER_EOI: u64 = 0x40;

const INDEX_ID: u8 = 0x00;
const INDEX_VERSION: u8 = 0x01;
const INDEX_ARBITRATION: u8 = 0x02;
const INDEX_FIRST_ENTRY: u8 = 0x10;

/// Version 0x20, and the number of the last entry in bits 23:16.
const VERSION: u32 = 0x20 | (gsi::PINS - 1) << 16;
const ID_MASK: u32 = 0x0f00_0000;

const PINS: usize = gsi::PINS as usize;

/// One entry of the redirection table (82093AA 3.2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const RESET: Self = Self(Self::MASKED);
    const DESTINATION_LOGICAL: u64 = 1 << 11;
    const REMOTE_IRR: u64 = 1 << 14;
    const LEVEL: u64 = 1 << 15;
    const MASKED: u64 = 1 << 16;
    /// Vector, delivery mode, destination mode, polarity, trigger mode, mask, destination. Delivery
    /// status (bit 12) is always idle, since messages leave at once; remote IRR is the chip's.
    const WRITABLE: u64 = 0xff00_0000_0001_afff;

    const DELIVERY_FIXED: u64 = 0;
    const DELIVERY_LOWEST_PRIORITY: u64 = 1;
    const DELIVERY_SMI: u64 = 2;
    const DELIVERY_NMI: u64 = 4;
    const DELIVERY_INIT: u64 = 5;

    fn vector(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    fn delivery_mode(self) -> u64 {
        self.0 >> 8 & 7
    }

    fn is_masked(self) -> bool {
        self.0 & Self::MASKED != 0
    }

    fn has_remote_irr(self) -> bool {
        self.0 & Self::REMOTE_IRR != 0
    }

    /// Only fixed and lowest-priority interrupts can be level-triggered: the local APIC ends no others.
    fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0 && self.delivery_mode() <= Self::DELIVERY_LOWEST_PRIORITY
    }

    /// The message of this entry whether it is masked or not, unless its delivery mode is reserved or
    /// ExtINT: then the 8259 pair answers for the vector, and the local APIC's LINT0 brings it.
    fn unmasked_message(self) -> Option<Msi> {
        let delivery_mode = self.delivery_mode();
        if !matches!(
            delivery_mode,
            Self::DELIVERY_FIXED
                | Self::DELIVERY_LOWEST_PRIORITY
                | Self::DELIVERY_SMI
                | Self::DELIVERY_NMI
                | Self::DELIVERY_INIT
        ) {
            return None;
        }
        let logical = u64::from(self.0 & Self::DESTINATION_LOGICAL != 0);
        let level = u32::from(self.is_level());
        Some(Msi {
            address: 0xfee0_0000 | self.0 >> 56 << 12 | logical << 2,
            data: u32::from(self.vector())
                | low_32_bits(delivery_mode) << 8
                | level << 14
                | level << 15,
        })
    }

    /// What an interrupt sends now.
    fn message(self) -> Option<Msi> {
        self.unmasked_message().filter(|_| !self.is_masked())
    }

    /// See [`IoApic::route`].
    fn route(self) -> Option<Msi> {
        self.unmasked_message()
            .filter(|_| self.is_level() || !self.is_masked())
    }
}

/// What a write set free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "messages have to be sent and routes to be made anew"]
pub struct IoApicWrite {
    /// [`IoApic::route`] of some pin now gives another answer.
    pub routes_changed: bool,
    /// What is to be sent now: level interrupts that waited to be unmasked or ended.
    pub messages: MsiList,
}

/// An I/O APIC with [`gsi::PINS`] pins. All methods are O(pins) at most and never allocate.
///
/// Levels are logical: the polarity bit of an entry can be written and read, and changes nothing, as a
/// wire that is asserted is asserted in either polarity.
#[derive(Debug, Clone)]
pub struct IoApic {
    id: u32,
    select: u8,
    entries: [Entry; PINS],
    asserted: [bool; PINS],
}

impl IoApic {
    /// The chip after reset: every entry masked, every wire released.
    pub fn new() -> Self {
        Self {
            id: u32::from(IOAPIC_ID) << 24 & ID_MASK,
            select: 0,
            entries: [Entry::RESET; PINS],
            asserted: [false; PINS],
        }
    }

    /// Drives a pin. Returns the message to send now: for an edge-triggered entry on the rising edge,
    /// for a level-triggered one unless an earlier interrupt of it has not ended. A masked entry
    /// forgets edges (82093AA 3.2.4, bit 16) and remembers levels. Pins beyond the last are not there.
    #[must_use = "the message has to be sent"]
    pub fn set_level(&mut self, pin: u32, asserted: bool) -> Option<Msi> {
        let pin = usize::try_from(pin).ok()?;
        let wire = self.asserted.get_mut(pin)?;
        let rose = asserted && !*wire;
        *wire = asserted;
        let entry = *self.entries.get(pin)?;
        match (rose, entry.is_level()) {
            (false, _) => None,
            (true, true) => self.deliver_level(pin),
            (true, false) => entry.message(),
        }
    }

    /// Takes the end of the interrupt `vector`, as local APICs broadcast it for level-triggered
    /// interrupts. Returns the messages of lines that are still asserted.
    #[must_use = "the messages have to be sent"]
    pub fn end_of_interrupt(&mut self, vector: u8) -> MsiList {
        let mut messages = MsiList::default();
        for pin in 0..PINS {
            let Some(entry) = self.entries.get_mut(pin) else {
                continue;
            };
            if entry.has_remote_irr() && entry.vector() == vector {
                entry.0 &= !Entry::REMOTE_IRR;
                messages.extend(self.deliver_level(pin));
            }
        }
        messages
    }

    /// The message for the machine's route of `pin`, over which events bypass this chip.
    ///
    /// A masked edge-triggered entry has none: its events are to be lost. A level-triggered entry, which
    /// carries the trigger bit, has one even while it is masked. Its interrupts go through
    /// [`set_level`](Self::set_level) and heed the mask; the route is there so that the end of one that is
    /// in service is still reported, since drivers mask an entry before they end its interrupt.
    pub fn route(&self, pin: u32) -> Option<Msi> {
        self.entries.get(usize::try_from(pin).ok()?)?.route()
    }

    /// Answers a read of `data.len()` bytes at `offset` in the chip's page; what is no register stays
    /// as the caller filled it.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            REGISTER_SELECT => u32::from(self.select),
            REGISTER_WINDOW => self.read_indexed(),
            _ => return,
        };
        // The datasheet knows 32-bit accesses alone: narrow ones see the low bytes, wide ones zeroes.
        let bytes = u64::from(value).to_le_bytes();
        for (target, source) in data.iter_mut().zip(bytes) {
            *target = source;
        }
    }

    /// Takes a write of `data` at `offset` in the chip's page.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> IoApicWrite {
        let mut bytes = [0; 4];
        for (target, source) in bytes.iter_mut().zip(data) {
            *target = *source;
        }
        let value = u32::from_le_bytes(bytes);
        match offset {
            REGISTER_SELECT => self.select = bytes[0],
            REGISTER_WINDOW => return self.write_indexed(value),
            REGISTER_EOI => {
                return IoApicWrite {
                    routes_changed: false,
                    messages: self.end_of_interrupt(bytes[0]),
                };
            }
            _ => {}
        }
        IoApicWrite::default()
    }

    fn read_indexed(&self) -> u32 {
        match self.select {
            INDEX_ID | INDEX_ARBITRATION => self.id,
            INDEX_VERSION => VERSION,
            _ => match self.selected_entry() {
                Some((pin, high)) => {
                    let entry = self.entries.get(pin).map_or(0, |entry| entry.0);
                    low_32_bits(if high { entry >> 32 } else { entry })
                }
                None => u32::MAX,
            },
        }
    }

    fn write_indexed(&mut self, value: u32) -> IoApicWrite {
        let mut outcome = IoApicWrite::default();
        if self.select == INDEX_ID {
            self.id = value & ID_MASK;
            return outcome;
        }
        let Some((pin, high)) = self.selected_entry() else {
            return outcome;
        };
        let Some(entry) = self.entries.get_mut(pin) else {
            return outcome;
        };
        let before = *entry;
        let (mask, bits) = if high {
            (Entry::WRITABLE & !0xffff_ffff, u64::from(value) << 32)
        } else {
            (Entry::WRITABLE & 0xffff_ffff, u64::from(value))
        };
        entry.0 = entry.0 & !mask | bits & mask;
        // Software that meets a chip without an EOI register clears remote IRR by way of edge mode.
        if !entry.is_level() {
            entry.0 &= !Entry::REMOTE_IRR;
        }
        outcome.routes_changed = before.route() != entry.route();
        if entry.is_level() {
            outcome.messages.extend(self.deliver_level(pin));
        }
        outcome
    }

    /// The entry that IOREGSEL names, and whether its high half is meant.
    fn selected_entry(&self) -> Option<(usize, bool)> {
        let index = self.select.checked_sub(INDEX_FIRST_ENTRY)?;
        let pin = usize::from(index >> 1);
        (pin < PINS).then_some((pin, index & 1 != 0))
    }

    /// The message of a level-triggered entry whose wire is asserted and whose last interrupt ended.
    fn deliver_level(&mut self, pin: usize) -> Option<Msi> {
        let entry = self.entries.get_mut(pin)?;
        if !*self.asserted.get(pin)? || !entry.is_level() || entry.has_remote_irr() {
            return None;
        }
        let message = entry.message()?;
        entry.0 |= Entry::REMOTE_IRR;
        Some(message)
    }
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

fn low_32_bits(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests;
