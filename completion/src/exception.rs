//! Exceptions that an instruction can raise (Intel SDM volume 3, chapter 7), and the other ways in which
//! carrying it out can stop.

use crate::cpu::CpuError;

/// Vectors of exceptions (Intel SDM volume 3, table 7-1).
pub mod vector {
    /// Divide error.
    pub const DIVIDE_ERROR: u8 = 0;
    /// Debug exception.
    pub const DEBUG: u8 = 1;
    /// Breakpoint, INT3.
    pub const BREAKPOINT: u8 = 3;
    /// Overflow, INTO.
    pub const OVERFLOW: u8 = 4;
    /// Invalid opcode.
    pub const INVALID_OPCODE: u8 = 6;
    /// Device not available.
    pub const DEVICE_NOT_AVAILABLE: u8 = 7;
    /// Segment not present.
    pub const SEGMENT_NOT_PRESENT: u8 = 11;
    /// Stack fault.
    pub const STACK_FAULT: u8 = 12;
    /// General protection.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// Page fault.
    pub const PAGE_FAULT: u8 = 14;
    /// x87 floating-point error.
    pub const FLOATING_POINT: u8 = 16;
    /// Alignment check.
    pub const ALIGNMENT_CHECK: u8 = 17;
}

/// An exception for the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Its vector: 0 to 31, or any if it is a software interrupt.
    pub vector: u8,
    /// The error code that is pushed, if the vector has one.
    pub error_code: Option<u32>,
    /// What CR2 becomes: the linear address of a page fault.
    pub cr2: Option<u64>,
    /// Whether it is a software interrupt, INT n: delivered as such, with the instruction pointer behind the
    /// instruction, without an error code and without a check of the gate's privilege level, which is done.
    pub software: bool,
}

impl Exception {
    /// One without an error code.
    pub const fn new(vector: u8) -> Self {
        Self {
            vector,
            error_code: None,
            cr2: None,
            software: false,
        }
    }

    /// INT `number`.
    pub const fn software_interrupt(number: u8) -> Self {
        let mut interrupt = Self::new(number);
        interrupt.software = true;
        interrupt
    }

    /// One with an error code.
    pub const fn with_code(vector: u8, code: u32) -> Self {
        Self {
            vector,
            error_code: Some(code),
            cr2: None,
            software: false,
        }
    }

    /// #UD.
    pub const fn invalid_opcode() -> Self {
        Self::new(vector::INVALID_OPCODE)
    }

    /// #NM.
    pub const fn device_not_available() -> Self {
        Self::new(vector::DEVICE_NOT_AVAILABLE)
    }

    /// #GP(0).
    pub const fn general_protection() -> Self {
        Self::with_code(vector::GENERAL_PROTECTION, 0)
    }

    /// #SS(0).
    pub const fn stack_fault() -> Self {
        Self::with_code(vector::STACK_FAULT, 0)
    }

    /// #PF with the error code `code` at the linear address `address`.
    pub const fn page_fault(address: u64, code: u32) -> Self {
        Self {
            vector: vector::PAGE_FAULT,
            error_code: Some(code),
            cr2: Some(address),
            software: false,
        }
    }
}

/// Why carrying an instruction out stopped.
#[derive(Debug)]
pub enum Stop {
    /// The instruction faults: nothing of it happened.
    Fault(Exception),
    /// The instruction completed and raises an exception behind itself: a trap.
    Trap(Exception),
    /// It is not an instruction that this crate carries out.
    Unknown,
    /// The vCPU's state is not to be had.
    Cpu(CpuError),
}

impl From<Exception> for Stop {
    fn from(exception: Exception) -> Self {
        Self::Fault(exception)
    }
}

impl From<CpuError> for Stop {
    fn from(error: CpuError) -> Self {
        Self::Cpu(error)
    }
}

/// What a step of an instruction gives.
pub type Step<T = ()> = Result<T, Stop>;
