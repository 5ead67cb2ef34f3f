//! One 8259A. Sections are those of the Intel 8259A datasheet (order number 231468).

/// Where the chip is in its initialisation ("Initialization Command Words", figure 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initialisation {
    /// After power-on: ICW1 has not been seen.
    Never,
    ExpectIcw2,
    ExpectIcw3,
    ExpectIcw4,
    Done,
}

const ICW1: u8 = 1 << 4;
const ICW1_NEEDS_ICW4: u8 = 1 << 0;
const ICW1_SINGLE: u8 = 1 << 1;
const ICW4_AUTO_EOI: u8 = 1 << 1;
const ICW4_SPECIAL_FULLY_NESTED: u8 = 1 << 4;
const OCW3: u8 = 1 << 3;
const OCW3_READ_ISR: u8 = 1 << 0;
const OCW3_READ: u8 = 1 << 1;
const OCW3_POLL: u8 = 1 << 2;
const OCW3_SPECIAL_MASK: u8 = 1 << 5;
const OCW3_SET_SPECIAL_MASK: u8 = 1 << 6;
/// What a poll reads when an input asks for service, beside the input's number.
const POLL_INTERRUPT: u8 = 1 << 7;

/// The input with the lowest priority after initialisation.
const LOWEST: u8 = 7;

#[derive(Debug, Clone)]
pub(super) struct I8259 {
    /// Which input another chip drives. Its request is that chip's output as it stands, not a latch.
    cascade: Option<u8>,
    level_mask: u8,
    /// Edge and level control: inputs that ask for as long as they are asserted.
    level_triggered: u8,
    wires: u8,
    /// Edges that were seen and not yet acknowledged.
    latched: u8,
    mask: u8,
    in_service: u8,
    vector_base: u8,
    lowest_priority: u8,
    initialisation: Initialisation,
    expects_icw4: bool,
    is_single: bool,
    auto_eoi: bool,
    rotates_on_auto_eoi: bool,
    special_fully_nested: bool,
    special_mask: bool,
    reads_in_service: bool,
    polls: bool,
}

impl I8259 {
    pub(super) fn new(cascade: Option<u8>, level_mask: u8) -> Self {
        Self {
            cascade,
            level_mask,
            level_triggered: 0,
            wires: 0,
            latched: 0,
            mask: 0,
            in_service: 0,
            vector_base: 0,
            lowest_priority: LOWEST,
            initialisation: Initialisation::Never,
            expects_icw4: false,
            is_single: false,
            auto_eoi: false,
            rotates_on_auto_eoi: false,
            special_fully_nested: false,
            special_mask: false,
            reads_in_service: false,
            polls: false,
        }
    }

    pub(super) fn set_level(&mut self, input: u8, asserted: bool) {
        let bit = bit(input);
        if asserted {
            // An edge stays latched when the wire drops before it is acknowledged: a pulse counts.
            self.latched |= bit & !self.wires & !self.level_triggered;
            self.wires |= bit;
        } else {
            self.wires &= !bit;
        }
    }

    pub(super) fn set_cascade(&mut self, asserted: bool) {
        let bit = self.cascade.map_or(0, bit);
        if asserted {
            self.wires |= bit;
        } else {
            self.wires &= !bit;
        }
    }

    pub(super) fn level_triggered(&self) -> u8 {
        self.level_triggered
    }

    pub(super) fn set_level_triggered(&mut self, inputs: u8) {
        self.level_triggered = inputs & self.level_mask;
        // What becomes level-triggered follows its wire from here on.
        self.latched &= !self.level_triggered;
    }

    pub(super) fn has_interrupt(&self) -> bool {
        self.pending().is_some()
    }

    /// An acknowledge cycle: the input that is served, `None` for a spurious one, and its vector.
    pub(super) fn acknowledge(&mut self) -> (Option<u8>, u8) {
        let input = self.pending();
        if let Some(input) = input {
            self.serve(input);
        }
        (input, self.vector_base | input.unwrap_or(7))
    }

    /// Reads the register at A0 = `data_port`.
    pub(super) fn read(&mut self, data_port: bool) -> u8 {
        if self.polls {
            self.polls = false;
            return match self.pending() {
                Some(input) => {
                    self.serve(input);
                    POLL_INTERRUPT | input
                }
                None => 0,
            };
        }
        match (data_port, self.reads_in_service) {
            (true, _) => self.mask,
            (false, true) => self.in_service,
            (false, false) => self.requests(),
        }
    }

    /// Writes the register at A0 = `data_port`.
    pub(super) fn write(&mut self, data_port: bool, value: u8) {
        if data_port {
            self.write_data(value);
        } else if value & ICW1 != 0 {
            self.write_icw1(value);
        } else if value & OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn write_icw1(&mut self, value: u8) {
        // LTIM (bit 3) has no effect on a PC: the edge and level control registers took its place.
        self.expects_icw4 = value & ICW1_NEEDS_ICW4 != 0;
        self.is_single = value & ICW1_SINGLE != 0;
        self.latched = 0;
        self.mask = 0;
        self.in_service = 0;
        self.lowest_priority = LOWEST;
        self.auto_eoi = false;
        self.rotates_on_auto_eoi = false;
        self.special_fully_nested = false;
        self.special_mask = false;
        self.reads_in_service = false;
        self.polls = false;
        self.initialisation = Initialisation::ExpectIcw2;
    }

    fn write_data(&mut self, value: u8) {
        let after_icw3 = if self.expects_icw4 {
            Initialisation::ExpectIcw4
        } else {
            Initialisation::Done
        };
        match self.initialisation {
            Initialisation::Never | Initialisation::Done => self.mask = value,
            Initialisation::ExpectIcw2 => {
                self.vector_base = value & 0xf8;
                self.initialisation = if self.is_single {
                    after_icw3
                } else {
                    Initialisation::ExpectIcw3
                };
            }
            // How the chips are wired together cannot be changed by software.
            Initialisation::ExpectIcw3 => self.initialisation = after_icw3,
            Initialisation::ExpectIcw4 => {
                self.auto_eoi = value & ICW4_AUTO_EOI != 0;
                self.special_fully_nested = value & ICW4_SPECIAL_FULLY_NESTED != 0;
                self.initialisation = Initialisation::Done;
            }
        }
    }

    /// End of interrupt and rotation ("Operation Command Words", OCW2).
    fn write_ocw2(&mut self, value: u8) {
        let input = value & 7;
        match value >> 5 {
            0b000 => self.rotates_on_auto_eoi = false,
            0b100 => self.rotates_on_auto_eoi = true,
            0b001 => {
                self.end_highest();
            }
            0b101 => {
                if let Some(input) = self.end_highest() {
                    self.lowest_priority = input;
                }
            }
            0b011 => self.in_service &= !bit(input),
            0b111 => {
                self.in_service &= !bit(input);
                self.lowest_priority = input;
            }
            0b110 => self.lowest_priority = input,
            _ => {}
        }
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & OCW3_SET_SPECIAL_MASK != 0 {
            self.special_mask = value & OCW3_SPECIAL_MASK != 0;
        }
        if value & OCW3_READ != 0 {
            self.reads_in_service = value & OCW3_READ_ISR != 0;
        }
        self.polls = value & OCW3_POLL != 0;
    }

    /// Non-specific end of interrupt: of the highest priority that is in service, leaving out what the
    /// special mask mode hides.
    fn end_highest(&mut self) -> Option<u8> {
        let hidden = if self.special_mask { self.mask } else { 0 };
        let input = self.highest(self.in_service & !hidden)?;
        self.in_service &= !bit(input);
        Some(input)
    }

    /// The interrupt request register: edges that were latched, levels as they stand.
    fn requests(&self) -> u8 {
        let follows_wire = self.level_triggered | self.cascade.map_or(0, bit);
        self.latched & !follows_wire | self.wires & follows_wire
    }

    /// The input to be served next: of higher priority than all that are in service.
    fn pending(&self) -> Option<u8> {
        if self.initialisation != Initialisation::Done {
            return None;
        }
        let input = self.highest(self.requests() & !self.mask)?;
        let mut blocking = self.in_service;
        if self.special_mask {
            // What is in service and masked holds nothing back ("Special Mask Mode").
            blocking &= !self.mask;
        }
        if self.special_fully_nested {
            // The secondary may ask again while one of its interrupts is in service.
            blocking &= !self.cascade.map_or(0, bit);
        }
        match self.highest(blocking) {
            Some(in_service) if self.rank(in_service) <= self.rank(input) => None,
            _ => Some(input),
        }
    }

    fn serve(&mut self, input: u8) {
        let bit = bit(input);
        self.latched &= !bit;
        if !self.auto_eoi {
            self.in_service |= bit;
        } else if self.rotates_on_auto_eoi {
            self.lowest_priority = input;
        }
    }

    /// The input of highest priority among `inputs`.
    fn highest(&self, inputs: u8) -> Option<u8> {
        let first = self.lowest_priority.wrapping_add(1) & 7;
        let rotated = inputs.rotate_right(u32::from(first));
        let rank = u8::try_from(rotated.trailing_zeros()).ok()?;
        (rank < 8).then_some(first.wrapping_add(rank) & 7)
    }

    /// 0 for the highest priority, 7 for the lowest.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest_priority).wrapping_sub(1) & 7
    }
}

fn bit(input: u8) -> u8 {
    1 << (input & 7)
}
