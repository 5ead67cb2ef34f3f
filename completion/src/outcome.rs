//! What became of an instruction.

use std::fmt;

use iced_x86::Mnemonic;

use crate::exception::Exception;

/// What [`complete`](crate::complete) did, and what is left to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The instruction was carried out; registers and memory have its results.
    Completed(Completed),
    /// The guest is to get an exception. For a fault the instruction pointer is at the instruction, for a
    /// trap (#BP, #OF) behind it; either way the registers are as the handler is to find them.
    Exception {
        /// The exception to inject.
        exception: Exception,
        /// The instruction that raised it; [`Mnemonic::INVALID`] when it could not be fetched or decoded.
        mnemonic: Mnemonic,
    },
    /// The instruction is not carried out here. Nothing has changed.
    Unknown(UnknownInstruction),
}

/// An instruction that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed {
    /// Which one, for counters.
    pub mnemonic: Mnemonic,
    /// RFLAGS.TF was set when it began: a #DB is to be injected, with DR6.BS.
    pub single_step: bool,
    /// What the guest hints at.
    pub hint: Option<Hint>,
}

/// What an instruction without effect tells the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// The guest spins or waits for memory to change (PAUSE, MWAIT): another thread may have the CPU.
    Wait,
}

/// An instruction that is not carried out here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownInstruction {
    /// Where it is.
    pub rip: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It, in the syntax of the manuals.
    pub disassembly: String,
}

impl fmt::Display for UnknownInstruction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {:#x} (", self.disassembly, self.rip)?;
        for (index, byte) in self.bytes.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(formatter, "{space}{byte:02x}")?;
        }
        write!(formatter, ")")
    }
}
