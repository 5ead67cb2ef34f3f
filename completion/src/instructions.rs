//! What each instruction does.
//!
//! - [`interrupt`]: INT n, INT3, INTO, UD0 to UD2
//! - [`integer`]: arithmetic and logic, XADD, CMPXCHG
//! - [`bits`]: BT and its family, scans, shifts and rotations
//! - [`data_move`]: MOV and its kind, XCHG, CMOVcc, SETcc, BSWAP, XLAT, LAHF, SAHF, direct stores
//! - [`exchange`]: CMPXCHG8B, CMPXCHG16B
//! - [`bit_manipulation`]: POPCNT, LZCNT, TZCNT, BMI1, BMI2
//! - [`arithmetic`]: ADCX, ADOX, CRC32, MOVBE, RDRAND, RDSEED
//! - [`system`]: flags, time, XCR0, segment bases, caches, waiting
//! - [`descriptor`]: LAR, LSL, VERR, VERW
//! - [`vector_state`]: the floating-point and vector registers in the XSAVE area
//! - [`fxsave`], [`xsave`], [`supervisor_state`]: that area to and from guest memory
//! - [`vector_move`]: loads and stores of vector registers
//! - [`x87`]: FILD, the one load that kernels use
//! - [`vector_mask`], [`opmask`]: AVX-512 masks and their registers
//! - [`mmx`]: MMX registers
//! - [`vector_integer`], [`vector_table`], [`lane`]: arithmetic on whole numbers in vectors
//! - [`cipher`], [`secure_hash`]: AES-NI, PCLMULQDQ, SHA
//! - [`control_flow`], [`strings`]: branches, the stack and string instructions, in runs of instructions
//! - [`vector_permute`]: across lanes, extensions, single elements

mod arithmetic;
mod bit_manipulation;
mod bits;
mod cipher;
mod control_flow;
mod data_move;
mod descriptor;
mod exchange;
mod fxsave;
mod integer;
mod interrupt;
mod lane;
mod mmx;
mod opmask;
mod secure_hash;
mod strings;
mod supervisor_state;
mod system;
mod vector_integer;
mod vector_mask;
mod vector_move;
mod vector_permute;
mod vector_state;
mod vector_table;
mod x87;
mod xsave;

use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind};

use crate::cpu::bits as flag_bits;
use crate::exception::{Step, Stop};
use crate::execution::Execution;

/// Carries the instruction out.
pub fn execute(x: &mut Execution<'_>) -> Step {
    match x.instruction.mnemonic() {
        M::Int3 | M::Into | M::Ud0 | M::Ud1 | M::Ud2 | M::Int => interrupt::execute(x),
        M::Cmpxchg8b | M::Cmpxchg16b => exchange::execute(x),
        mnemonic if is_bit_manipulation(mnemonic) => bit_manipulation::execute(x),
        M::Adcx | M::Adox | M::Crc32 | M::Movbe | M::Rdrand | M::Rdseed => arithmetic::execute(x),
        M::Lar | M::Lsl | M::Verr | M::Verw => descriptor::execute(x),
        M::Fxsave
        | M::Fxsave64
        | M::Fxrstor
        | M::Fxrstor64
        | M::Ldmxcsr
        | M::Vldmxcsr
        | M::Stmxcsr
        | M::Vstmxcsr
        | M::Fninit
        | M::Fnstcw
        | M::Fldcw
        | M::Fild
        | M::Fnstsw
        | M::Wait
        | M::Fnclex
        | M::Emms => fxsave::execute(x),
        M::Xsave
        | M::Xsave64
        | M::Xsaveopt
        | M::Xsaveopt64
        | M::Xsavec
        | M::Xsavec64
        | M::Xsaves
        | M::Xsaves64
        | M::Xrstor
        | M::Xrstor64
        | M::Xrstors
        | M::Xrstors64 => xsave::execute(x),
        _ if system::execute(x)? => Ok(()),
        _ if integer::execute(x)? => Ok(()),
        _ if bits::execute(x)? => Ok(()),
        _ if data_move::execute(x)? => Ok(()),
        _ if mmx::execute(x)? => Ok(()),
        _ if vector_move::execute(x)? => Ok(()),
        _ if vector_integer::execute(x)? => Ok(()),
        _ if vector_permute::execute(x)? => Ok(()),
        _ if opmask::execute(x)? => Ok(()),
        _ => Err(Stop::Unknown),
    }
}

/// Whether [`bit_manipulation`] carries the instruction out.
const fn is_bit_manipulation(mnemonic: M) -> bool {
    matches!(
        mnemonic,
        M::Popcnt
            | M::Lzcnt
            | M::Tzcnt
            | M::Andn
            | M::Bextr
            | M::Blsi
            | M::Blsmsk
            | M::Blsr
            | M::Bzhi
            | M::Mulx
            | M::Pdep
            | M::Pext
            | M::Rorx
            | M::Sarx
            | M::Shlx
            | M::Shrx
    )
}

/// Carries an instruction out, if it is one of its own.
pub type Handler = fn(&mut Execution<'_>) -> Step<bool>;

/// What carries `instruction` out in a run of instructions; none when it is not for a run.
pub fn handler(instruction: &Instruction) -> Option<Handler> {
    Some(match instruction.mnemonic() {
        M::Jmp
        | M::Call
        | M::Ret
        | M::Push
        | M::Pop
        | M::Pushfq
        | M::Popfq
        | M::Leave
        | M::Jrcxz => control_flow::execute,
        _ if instruction.is_jcc_short_or_near() => control_flow::execute,
        M::Add
        | M::Adc
        | M::Sub
        | M::Sbb
        | M::Cmp
        | M::And
        | M::Test
        | M::Or
        | M::Xor
        | M::Inc
        | M::Dec
        | M::Neg
        | M::Not
        | M::Xadd
        | M::Cmpxchg
        | M::Imul
        | M::Mul
        | M::Div
        | M::Idiv => integer::execute,
        M::Bt
        | M::Bts
        | M::Btr
        | M::Btc
        | M::Bsf
        | M::Bsr
        | M::Shl
        | M::Sal
        | M::Shr
        | M::Sar
        | M::Rol
        | M::Ror
        | M::Rcl
        | M::Rcr
        | M::Shld
        | M::Shrd => bits::execute,
        M::Mov
        | M::Movzx
        | M::Movsx
        | M::Movsxd
        | M::Movnti
        | M::Xchg
        | M::Bswap
        | M::Lea
        | M::Cbw
        | M::Cwde
        | M::Cdqe
        | M::Cwd
        | M::Cdq
        | M::Cqo
        | M::Lahf
        | M::Sahf => data_move::execute,
        // CMOVcc and SETcc.
        _ if instruction.condition_code() != ConditionCode::None => data_move::execute,
        _ if instruction.is_string_instruction() => strings::execute,
        M::Cmpxchg8b | M::Cmpxchg16b => |x| exchange::execute(x).map(|()| true),
        mnemonic if is_bit_manipulation(mnemonic) => {
            |x| bit_manipulation::execute(x).map(|()| true)
        }
        M::Adcx | M::Adox | M::Crc32 | M::Movbe => |x| arithmetic::execute(x).map(|()| true),
        // Kernels read the time some times in each tick: an ioctl is cheaper than a step of KVM's.
        M::Rdtsc
        | M::Rdtscp
        | M::Clac
        | M::Stac
        | M::Nop
        | M::Endbr64
        | M::Pause
        | M::Mfence
        | M::Lfence
        | M::Sfence
        | M::Prefetchw
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2 => system::execute,
        M::Clc | M::Stc | M::Cmc | M::Cld | M::Std | M::Cli | M::Sti => flag,
        // They change what a return to a program restores, or wait.
        M::Xgetbv | M::Xsetbv => return None,
        _ if has_area(instruction) => vectors,
        _ => return None,
    })
}

/// Whether the instruction works on vector registers, or saves and restores them.
pub fn has_area(instruction: &Instruction) -> bool {
    let has_vectors = (0..instruction.op_count()).any(|number| {
        instruction.op_kind(number) == OpKind::Register
            && instruction.op_register(number).is_vector_register()
    });
    has_vectors || instruction.is_save_restore_instruction()
}

/// What works on the XSAVE area.
fn vectors(x: &mut Execution<'_>) -> Step<bool> {
    execute(x).map(|()| true)
}

/// CLC, STC, CMC, CLD, STD, CLI and STI, at privilege level 0.
fn flag(x: &mut Execution<'_>) -> Step<bool> {
    let flags = &mut x.registers.rflags;
    match x.instruction.mnemonic() {
        M::Clc => *flags &= !flag_bits::CF,
        M::Stc => *flags |= flag_bits::CF,
        M::Cmc => *flags ^= flag_bits::CF,
        M::Cld => *flags &= !flag_bits::DF,
        M::Std => *flags |= flag_bits::DF,
        M::Cli => *flags &= !flag_bits::IF,
        M::Sti => *flags |= flag_bits::IF,
        _ => return Ok(false),
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
