//! Interrupts and exceptions: ring-0 stubs that count, acknowledge and return.
//!
//! Each of the 256 vectors has a stub that adds one to the vector's count and sends the end of interrupt
//! that the vector's flags ask for. A fault goes on in ring 3: where [`catch_fault`] said, or else in a
//! panic that tells what and where.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::entry::{KERNEL_CODE, USER_CODE, USER_DATA};

/// The handler writes the local APIC's end-of-interrupt register.
pub const EOI_LAPIC: u8 = 1;
/// The handler sends a non-specific end of interrupt to the primary 8259.
pub const EOI_PIC_PRIMARY: u8 = 2;
/// The handler sends a non-specific end of interrupt to the secondary 8259.
pub const EOI_PIC_SECONDARY: u8 = 4;

/// How often each vector was taken, on all processors together.
static COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
/// What each vector's handler acknowledges: `EOI_…`.
static FLAGS: [AtomicU8; 256] = [const { AtomicU8::new(0) }; 256];
/// Vector, error code, RIP and CR2 of the last fault.
static FAULT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// Where the next fault goes on, 0 for the panic.
static FAULT_RESUMES_AT: AtomicU64 = AtomicU64::new(0);
/// Whether a fault of ring 0 goes on at ring 0.
static FAULT_STAYS_AT_ITS_RING: AtomicU8 = AtomicU8::new(0);

global_asm!(
    r#"
    # Sixteen bytes each. Exceptions 8, 10 to 14, 17, 21, 29 and 30 bring an error code.
    .text
    .balign 16
    .global vector_stubs
vector_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !((vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30))
    pushq $0
    .endif
    pushq $vector
    jmp vector_common
    .set vector, vector + 1
    .endr

    .global page_fault_clac
page_fault_clac:
    clac
    jmp vector_stubs + 16 * 14

vector_common:
    push %rax
    push %rcx
    mov 16(%rsp), %ecx
    lock incq {counts}(,%rcx,8)
    cmp $32, %ecx
    jb 3f
    movzbl {flags}(%rcx), %eax
    test $1, %al
    jz 1f
    mov $0xfee000b0, %ecx
    movl $0, (%rcx)
1:  test $6, %al
    jz 2f
    test $4, %al
    mov $0x20, %al
    jz 1f
    out %al, $0xa0
1:  out %al, $0x20
2:  pop %rcx
    pop %rax
    add $16, %rsp
    iretq

3:  cmp $2, %ecx                # the non-maskable interrupt, breakpoints and overflow return
    je 2b
    cmp $3, %ecx
    je 2b
    mov %rcx, {fault}
    mov 24(%rsp), %rax
    mov %rax, {fault} + 8
    mov 32(%rsp), %rax
    mov %rax, {fault} + 16
    mov %cr2, %rax
    mov %rax, {fault} + 24
    mov {resumes_at}, %rax
    test %rax, %rax
    jnz 4f
    lea fault_panics(%rip), %rax
4:  movq $0, {resumes_at}
    mov %rax, 32(%rsp)
    andl $~0x100, 48(%rsp)      # a single step is over
    cmpb $0, {stays}
    jne 2b
    cmpq ${kernel_code}, 40(%rsp)
    jne 2b
    movq ${user_code}, 40(%rsp) # a fault of ring 0 goes on in ring 3 on the stack that is there
    movq ${user_data}, 64(%rsp)
    mov 56(%rsp), %rax
    sub $256, %rax
    and $-16, %rax
    mov %rax, 56(%rsp)
    jmp 2b

fault_panics:
    and $-16, %rsp
    call {panics}
    ud2
"#,
    counts = sym COUNTS,
    flags = sym FLAGS,
    fault = sym FAULT,
    resumes_at = sym FAULT_RESUMES_AT,
    stays = sym FAULT_STAYS_AT_ITS_RING,
    panics = sym fault_panics,
    kernel_code = const KERNEL_CODE,
    user_code = const USER_CODE,
    user_data = const USER_DATA,
    options(att_syntax)
);

unsafe extern "C" {
    /// The first of 256 stubs at 16 bytes each.
    static vector_stubs: u8;
    /// The stub of page faults behind a CLAC.
    static page_fault_clac: u8;
    /// Handler of UD2, which is how ring 3 calls ring 0.
    static invalid_opcode_entry: u8;
    /// The interrupt descriptor table, loaded and empty.
    static mut interrupt_descriptors: [[u64; 2]; 256];
}

/// A fault, as its handler recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Vector of the exception.
    pub vector: u64,
    /// Its error code, 0 for those without one.
    pub error_code: u64,
    /// Address of the instruction.
    pub instruction: u64,
    /// CR2: the address of the last page fault.
    pub address: u64,
}

/// Fills the interrupt descriptor table. Ring 0 has loaded it, empty, before.
pub fn initialise() {
    let stubs = &raw const vector_stubs as u64;
    for vector in 0..=255u8 {
        let handler = match vector {
            6 => &raw const invalid_opcode_entry as u64,
            _ => stubs + u64::from(vector) * 16,
        };
        // Breakpoints may come from ring 3.
        let privilege_level = if vector == 3 { 3 } else { 0 };
        set_gate(vector, handler, privilege_level);
    }
}

/// Has the handler of page faults begin with CLAC from now on, as those of kernels do that use SMAP.
pub fn begin_page_faults_with_clac() {
    set_gate(14, &raw const page_fault_clac as u64, 0);
}

fn set_gate(vector: u8, handler: u64, privilege_level: u64) {
    // Intel SDM volume 3, figure 7-8: a 64-bit interrupt gate, present.
    let low = handler & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | 0x8e00 << 32
        | privilege_level << 45
        | (handler >> 16 & 0xffff) << 48;
    // SAFETY: no other processor runs that could take this interrupt now; the table is memory of ours.
    unsafe {
        (&raw mut interrupt_descriptors[usize::from(vector)]).write_volatile([low, handler >> 32]);
    };
}

/// How often `vector` was taken since the start.
pub fn count(vector: u8) -> u64 {
    COUNTS[usize::from(vector)].load(Ordering::Acquire)
}

/// Says what the handler of `vector` acknowledges.
pub fn acknowledge(vector: u8, flags: u8) {
    FLAGS[usize::from(vector)].store(flags, Ordering::Release);
}

/// Executes `ud2` and tells the fault that came of it.
pub fn catch_invalid_opcode() -> Fault {
    // SAFETY: the handler goes on at the label, with the stack as it is.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{resumes_at}], {scratch}",
            "xor r11d, r11d",
            "ud2",
            "2:",
            out("r11") _,
            scratch = out(reg) _,
            resumes_at = in(reg) FAULT_RESUMES_AT.as_ptr(),
        );
    }
    last_fault()
}

/// Reads a byte of memory and tells the fault that came of it, if one did.
pub fn catch_read(address: u64) -> Option<Fault> {
    let before = count(14) + count(13);
    // SAFETY: the handler goes on at the label, with the stack as it is; a read changes nothing.
    unsafe {
        asm!(
            "lea {scratch}, [rip + 2f]",
            "mov [{resumes_at}], {scratch}",
            "mov {scratch:l}, [{address}]",
            "2:",
            scratch = out(reg) _,
            resumes_at = in(reg) FAULT_RESUMES_AT.as_ptr(),
            address = in(reg) address,
        );
    }
    FAULT_RESUMES_AT.store(0, Ordering::Release);
    (count(14) + count(13) != before).then(last_fault)
}

/// Has the next fault go on at `address`, with the stack as it is and at the ring that it came from.
pub fn resume_fault_at(address: u64) {
    FAULT_STAYS_AT_ITS_RING.store(1, Ordering::Release);
    FAULT_RESUMES_AT.store(address, Ordering::Release);
}

/// The fault since [`resume_fault_at`], if there was one; the next one is unexpected again.
pub fn take_fault() -> Option<Fault> {
    FAULT_STAYS_AT_ITS_RING.store(0, Ordering::Release);
    (FAULT_RESUMES_AT.swap(0, Ordering::AcqRel) == 0).then(last_fault)
}

/// The last fault that was caught.
fn last_fault() -> Fault {
    let [vector, error_code, instruction, address] =
        [0, 1, 2, 3].map(|index: usize| FAULT[index].load(Ordering::Acquire));
    Fault {
        vector,
        error_code,
        instruction,
        address,
    }
}

/// Where faults that nobody expects go on.
extern "C" fn fault_panics() -> ! {
    panic!("unexpected {:x?}", last_fault())
}
