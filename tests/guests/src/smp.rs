//! Start of the other processors by INIT and SIPI (Intel SDM volume 3, 10.4), into Rust at ring 3.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::entry::{
    FIRST_TASK_STATE, PERMISSION_MAP_BYTES, PROCESSORS_MAX, RING_0_STACK_BYTES, TASK_STATE_STRIDE,
    USER_CODE, USER_DATA,
};
use crate::lapic;
use crate::time::{MILLISECONDS, spin};

/// The page below 1 MiB into which the 16-bit code is copied; the SIPI's vector is its number.
const TRAMPOLINE: usize = 0x8000;
/// Bytes of ring 3's stack of each further processor.
const STACK_BYTES: usize = 8192;

/// What the processors run at ring 3.
static MAIN: AtomicU64 = AtomicU64::new(0);

/// Stacks, indexed by APIC identifier.
#[repr(C, align(4096))]
struct Stacks([[u8; STACK_BYTES]; PROCESSORS_MAX]);
#[repr(C, align(16))]
struct Ring0Stacks([[u8; RING_0_STACK_BYTES]; PROCESSORS_MAX]);

static mut STACKS: Stacks = Stacks([[0; STACK_BYTES]; PROCESSORS_MAX]);
static mut RING_0_STACKS: Ring0Stacks = Ring0Stacks([[0; RING_0_STACK_BYTES]; PROCESSORS_MAX]);

global_asm!(
    r#"
    # Copied to {trampoline}, entered there in real mode with CS = {trampoline} >> 4. Directly to long
    # mode: paging is turned on together with protection.
    .section .rodata.trampoline, "a", @progbits
    .global trampoline_start, trampoline_end
    .code16
trampoline_start:
    cli
    mov %cs, %ax
    mov %ax, %ds
    lgdtl trampoline_descriptors - trampoline_start
    mov $0x620, %eax
    mov %eax, %cr4
    mov $page_table_4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov $0x80000033, %eax
    mov %eax, %cr0
    ljmpl $0x08, $processor_long_mode
    .balign 4
trampoline_descriptors:
    .short 0x3f
    .long global_descriptors
trampoline_end:

    .text
    .code64
processor_long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    lgdt global_descriptors_pointer
    lidt interrupt_descriptors_pointer
    mov $0xfee00020, %edi
    mov (%rdi), %edi
    shr $24, %edi               # APIC identifier
    mov %edi, %eax
    shl $4, %eax
    add ${first_task_state}, %eax
    ltr %ax
    lea 1(%rdi), %ecx
    imul ${ring_0_stack_bytes}, %ecx, %edx
    lea {ring_0_stacks}(%rdx), %rsp
    imul ${stack_bytes}, %ecx, %ecx
    lea {stacks}(%rcx), %rax
    pushq ${user_data}
    push %rax
    pushq $0x2
    pushq ${user_code}
    pushq $processor_ring_3
    iretq

processor_ring_3:
    mov ${user_data}, %eax
    mov %eax, %ds
    mov %eax, %es
    call *{main}
    ud2
"#,
    trampoline = const TRAMPOLINE,
    first_task_state = const FIRST_TASK_STATE,
    ring_0_stack_bytes = const RING_0_STACK_BYTES,
    stack_bytes = const STACK_BYTES,
    ring_0_stacks = sym RING_0_STACKS,
    stacks = sym STACKS,
    main = sym MAIN,
    user_code = const USER_CODE,
    user_data = const USER_DATA,
    options(att_syntax)
);

unsafe extern "C" {
    static trampoline_start: u8;
    static trampoline_end: u8;
    static mut global_descriptors: [u64; 8 + PROCESSORS_MAX * 2];
    static mut task_states: [[u8; TASK_STATE_STRIDE]; PROCESSORS_MAX];
}

/// Prepares the 16-bit code and what the processors run: `main` gets the APIC identifier, at ring 3 with
/// interrupts off, and never returns.
pub fn prepare(main: extern "C" fn(u64) -> !) {
    MAIN.store(main as usize as u64, Ordering::Release);
    let start = &raw const trampoline_start;
    let length = &raw const trampoline_end as usize - start as usize;
    // SAFETY: conventional memory that nothing uses once the boot information was read.
    unsafe { core::ptr::copy_nonoverlapping(start, TRAMPOLINE as *mut u8, length) };
}

/// Resets the processor `apic_id` and starts it.
///
/// # Panics
///
/// When the identifier is too high.
pub fn start(apic_id: u8) {
    prepare_task_state(usize::from(apic_id));
    lapic::send(apic_id, 0x4500);
    spin(MILLISECONDS);
    lapic::send(apic_id, 0x4600 | (TRAMPOLINE >> 12) as u32);
}

/// Sends the second start-up interrupt, which a processor that runs ignores.
pub fn start_again(apic_id: u8) {
    lapic::send(apic_id, 0x4600 | (TRAMPOLINE >> 12) as u32);
}

/// Fills in the task state and its descriptor; the boot processor's own is in use and stays.
fn prepare_task_state(index: usize) {
    assert!(
        (1..PROCESSORS_MAX).contains(&index),
        "APIC identifier {index}"
    );
    let map = (PROCESSORS_MAX - index) * TASK_STATE_STRIDE;
    let limit = (map + PERMISSION_MAP_BYTES) as u64;
    // SAFETY: only the boot processor writes these, each before its processor runs.
    unsafe {
        let task_state = (&raw mut task_states[index]).cast::<u8>();
        let stack_end = (&raw const RING_0_STACKS.0[index]).add(1) as u64;
        task_state.add(4).cast::<u64>().write_unaligned(stack_end);
        task_state
            .add(102)
            .cast::<u16>()
            .write_unaligned(map as u16);
        let address = task_state as u64;
        let descriptor = limit & 0xffff
            | (address & 0xff_ffff) << 16
            | 0x89 << 40
            | (limit >> 16) << 48
            | (address >> 24 & 0xff) << 56;
        let place = (&raw mut global_descriptors)
            .cast::<u64>()
            .add(usize::from(FIRST_TASK_STATE) / 8 + index * 2);
        place.write_volatile(descriptor);
        place.add(1).write_volatile(address >> 32);
    }
}
