//! INT3, INTO and the undefined instructions (Intel SDM volume 2, INT n/INTO/INT3/INT1, UD).

use iced_x86::Mnemonic as M;

use crate::cpu::bits;
use crate::exception::{Exception, Step, Stop, vector};
use crate::execution::Execution;

pub fn execute(x: &Execution<'_>) -> Step {
    match x.instruction.mnemonic() {
        M::Int3 => Err(Stop::Trap(Exception::new(vector::BREAKPOINT))),
        M::Into if x.has_flags(bits::OF) => Err(Stop::Trap(Exception::new(vector::OVERFLOW))),
        M::Into => Ok(()),
        M::Ud0 | M::Ud1 | M::Ud2 => Err(Exception::invalid_opcode().into()),
        _ => Err(Stop::Unknown),
    }
}
