//! What ring 3 has ring 0 do: UD2 with a certain number in R11.
//!
//! An exception is the one gate that works everywhere. KVMs that run ring 3 natively and emulate ring 0
//! were seen to refuse software interrupts, and to stay at ring 3 after SYSCALL.
//!
//! The function number is in RAX, arguments in RDI and RSI, the result in RAX; all other registers are
//! kept.

use core::arch::{asm, global_asm};

/// Tells a call from an instruction that really is invalid.
const MAGIC: u32 = 0x0ca1_1000;

const HALT: u64 = 0;
const READ_MSR: u64 = 1;
const WRITE_MSR: u64 = 2;
const INVALIDATE_PAGE: u64 = 3;
const TRIPLE_FAULT: u64 = 4;
const READ_CR4: u64 = 5;
const HALT_FOR_EVER: u64 = 6;
const CPUID: u64 = 7;
const INTERRUPTS_ON: u64 = 8;
const INTERRUPTS_OFF: u64 = 9;
const CALL: u64 = 10;

global_asm!(
    r#"
    .text
    .global invalid_opcode_entry
invalid_opcode_entry:
    cmp ${magic}, %r11d
    jne vector_stubs + 16 * 6
    addq $2, (%rsp)             # behind UD2
    cmp ${halt}, %eax
    je 20f
    cmp ${interrupts_on}, %eax
    je 21f
    cmp ${interrupts_off}, %eax
    je 22f
    cmp ${call}, %eax
    je 29f
    push %rcx
    push %rdx
    mov %edi, %ecx
    cmp ${read_msr}, %eax
    je 23f
    cmp ${write_msr}, %eax
    je 24f
    cmp ${cpuid}, %eax
    je 25f
    cmp ${invalidate_page}, %eax
    je 26f
    cmp ${read_cr4}, %eax
    je 27f
    cmp ${triple_fault}, %eax
    je 28f
    cli
30: hlt
    jmp 30b
20: sti
    hlt
    iretq
21: orl $0x200, 16(%rsp)        # IF of the saved RFLAGS
    iretq
22: andl $~0x200, 16(%rsp)
    iretq
23: rdmsr
    shl $32, %rdx
    mov %eax, %eax
    or %rdx, %rax
    jmp 31f
24: mov %rsi, %rdx
    shr $32, %rdx
    mov %esi, %eax
    wrmsr
    jmp 31f
25: push %rbx
    mov %edi, %eax
    mov %rdi, %rcx
    shr $32, %rcx
    cpuid
    mov %eax, (%rsi)
    mov %ebx, 4(%rsi)
    mov %ecx, 8(%rsi)
    mov %edx, 12(%rsi)
    pop %rbx
    jmp 31f
26: invlpg (%rdi)
    jmp 31f
27: mov %cr4, %rax
    jmp 31f
28: pushq $0
    pushq $0
    lidt (%rsp)
    ud2
29: push %rbx                   # on the caller's stack, below its red zone
    mov %rsp, %rbx
    mov 32(%rsp), %rsp
    sub $128, %rsp
    and $-16, %rsp
    mov %rdi, %rax
    mov %rsi, %rdi
    xor %r11d, %r11d            # an invalid opcode of its own is no call
    cld
    call *%rax
    mov %rbx, %rsp
    pop %rbx
    iretq
31: pop %rdx
    pop %rcx
    iretq
"#,
    magic = const MAGIC,
    halt = const HALT,
    read_msr = const READ_MSR,
    write_msr = const WRITE_MSR,
    invalidate_page = const INVALIDATE_PAGE,
    triple_fault = const TRIPLE_FAULT,
    read_cr4 = const READ_CR4,
    cpuid = const CPUID,
    interrupts_on = const INTERRUPTS_ON,
    interrupts_off = const INTERRUPTS_OFF,
    call = const CALL,
    options(att_syntax)
);

/// The call.
fn call(function: u64, first: u64, second: u64) -> u64 {
    let result;
    // SAFETY: the handler keeps all other registers, and writes memory only where the function's
    // wrapper below says so.
    unsafe {
        asm!("ud2", inout("rax") function => result, in("rdi") first, in("rsi") second,
            in("r11") MAGIC);
    }
    result
}

/// Lets the processor sleep until an interrupt, with interrupts on; they are afterwards as before.
pub fn halt() {
    call(HALT, 0, 0);
}

/// Lets the processor sleep for ever, with interrupts off.
pub fn halt_for_ever() -> ! {
    loop {
        call(HALT_FOR_EVER, 0, 0);
    }
}

/// Reads a model-specific register.
pub fn read_msr(index: u32) -> u64 {
    call(READ_MSR, u64::from(index), 0)
}

/// Writes a model-specific register.
pub fn write_msr(index: u32, value: u64) {
    call(WRITE_MSR, u64::from(index), value);
}

/// Forgets the translation of one page.
pub fn invalidate_page(address: u64) {
    call(INVALIDATE_PAGE, address, 0);
}

/// CPUID as ring 0 sees it: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let mut registers = [0; 4];
    call(
        CPUID,
        u64::from(leaf) | u64::from(subleaf) << 32,
        registers.as_mut_ptr() as u64,
    );
    registers
}

/// Control register 4.
pub fn read_cr4() -> u64 {
    call(READ_CR4, 0, 0)
}

/// An exception without a descriptor table to handle it: the processor shuts down.
pub fn triple_fault() -> ! {
    call(TRIPLE_FAULT, 0, 0);
    halt_for_ever()
}

/// Turns interrupts on.
pub fn interrupts_on() {
    call(INTERRUPTS_ON, 0, 0);
}

/// Turns interrupts off.
pub fn interrupts_off() {
    call(INTERRUPTS_OFF, 0, 0);
}

/// Runs `function` at ring 0, with interrupts off, on the stack that is there.
pub fn at_ring_0(function: extern "C" fn(u64) -> u64, argument: u64) -> u64 {
    let result;
    // SAFETY: the handler calls the function as the ABI wants it, which clobbers what is said here.
    unsafe {
        asm!("ud2", inout("rax") CALL => result, inout("rdi") function as usize as u64 => _,
            inout("rsi") argument => _, inout("r11") u64::from(MAGIC) => _, clobber_abi("C"));
    }
    result
}
