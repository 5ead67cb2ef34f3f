//! From the boot loader's entry points to ring 3: page tables, descriptor tables, the two entries.
//!
//! PVH enters at [`entry_32`](self) in 32-bit protected mode with the start info's address in EBX; the
//! 64-bit Linux boot protocol at `entry_64` in long mode with the zero page's in RSI. Both meet in long
//! mode with our own tables loaded, and leave to `ring_3_start` by IRETQ.
//!
//! Tables are filled in by the assembler where that can be done, and by ring 3 afterwards where not
//! (interrupt descriptors, task states of other processors): ring 0 may be slow.

use core::arch::global_asm;

/// Processors that the descriptor tables have room for: xAPIC identifiers 0 to 254.
pub const PROCESSORS_MAX: usize = 255;
/// Selector of ring 0's code.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of ring 3's 64-bit code, with its privilege level.
pub const USER_CODE: u16 = 0x28 | 3;
/// Selector of ring 3's data and stack, with its privilege level.
pub const USER_DATA: u16 = 0x20 | 3;
/// Selector of the first processor's task state; others follow at 16 bytes each.
pub const FIRST_TASK_STATE: u16 = 0x40;
/// Distance between two processors' task state segments: 104 bytes (Intel SDM volume 3, figure 8-11),
/// rounded up.
pub const TASK_STATE_STRIDE: usize = 112;
/// Bytes of the I/O permission map: a bit for each port, all 0, which allows ring 3 the access. It lies
/// behind the task states and is shared by all of them. I/O privilege level 3 would do the same, but not
/// every KVM keeps that field of RFLAGS while ring 3 runs.
pub const PERMISSION_MAP_BYTES: usize = 0x2000;
/// Bytes of ring 0's stack on each processor: a few nested frames.
pub const RING_0_STACK_BYTES: usize = 1024;

global_asm!(
    r#"
    .section .pvh_note, "a", @note
    .balign 4
    .long 4                     # n_namesz
    .long 8                     # n_descsz
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .balign 4
    .quad entry_32

    # Four levels, 2 MiB pages, 4 GiB at their own addresses; present, writable, user. The highest GiB,
    # where the devices are, is uncached.
    .section .page_tables, "aw", @progbits
    .balign 4096
    .global page_table_4
page_table_4:
    .quad page_table_3 + 7
    .fill 511, 8, 0
page_table_3:
    .quad page_tables_2 + 0x0000 + 7
    .quad page_tables_2 + 0x1000 + 7
    .quad page_tables_2 + 0x2000 + 7
    .quad page_tables_2 + 0x3000 + 7
    .fill 508, 8, 0
page_tables_2:
    .set page, 0
    .rept 1536
    .quad (page << 21) + 0x87
    .set page, page + 1
    .endr
    .rept 512
    .quad (page << 21) + 0x97
    .set page, page + 1
    .endr

    .section .data.descriptors, "aw", @progbits
    .balign 16
    .global global_descriptors
global_descriptors:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08 ring 0, 64-bit code
    .quad 0x00cf93000000ffff    # 0x10 ring 0, data
    .quad 0x00cf9b000000ffff    # 0x18 ring 0, 32-bit code
    .quad 0x00cff3000000ffff    # 0x20 ring 3, data
    .quad 0x00affb000000ffff    # 0x28 ring 3, 64-bit code
    .quad 0, 0
    # 0x40: task states, the boot processor's first. Ring 0 makes the descriptor of that one before it
    # loads the register, ring 3 the others.
    .fill {processors} * 2, 8, 0
global_descriptors_end:

    .balign 16
    .global task_states
task_states:
    .long 0
    .quad ring_0_stack_end      # RSP0
    .fill 90, 1, 0
    .short permission_map - task_states
    .fill {task_state_stride} * {processors} - 104, 1, 0
permission_map:
    .fill {permission_map_bytes}, 1, 0
    .byte 0xff
permission_map_end:

    .balign 4
    .global global_descriptors_pointer
    .short 0
global_descriptors_pointer:
    .short global_descriptors_end - global_descriptors - 1
    .quad global_descriptors
    .balign 4
    .short 0
    .global interrupt_descriptors_pointer
interrupt_descriptors_pointer:
    .short 4095
    .quad interrupt_descriptors

    .section .bss.stacks, "aw", @nobits
    .balign 4096
    .global interrupt_descriptors
interrupt_descriptors:
    .fill 4096, 1, 0
    .fill {ring_0_stack_bytes}, 1, 0
ring_0_stack_end:
    .balign 4096
    .fill 0x20000, 1, 0
ring_3_stack_end:

    .section .boot, "ax", @progbits
    .code32
    .global entry_32
entry_32:
    cli
    cld
    lgdt global_descriptors_pointer
    mov $page_table_4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x620, %eax             # PAE, OSFXSR, OSXMMEXCPT
    mov %eax, %cr4
    mov $0xc0000080, %ecx       # EFER
    rdmsr
    or $0x100, %eax             # LME
    wrmsr
    mov $0x80000033, %eax       # PG, NE, ET, MP, PE
    mov %eax, %cr0
    xor %edi, %edi              # protocol: PVH
    mov %ebx, %esi
    ljmp ${kernel_code}, $long_mode

    .code64
    .global entry_64
entry_64:
    cli
    cld
    lgdt global_descriptors_pointer
    mov $page_table_4, %eax
    mov %rax, %cr3
    mov %cr4, %rax
    or $0x620, %eax
    mov %rax, %cr4
    mov $0x80000033, %eax
    mov %rax, %cr0
    mov $ring_0_stack_end, %esp
    mov $1, %edi                # protocol: Linux, 64 bits; the zero page is in RSI
    pushq ${kernel_code}
    pushq $long_mode
    lretq

long_mode:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $ring_0_stack_end, %esp
    mov $task_states, %eax      # below 16 MiB: address bits 0 to 23
    shl $16, %rax
    movabs $0x0000890000000000, %rcx
    or %rcx, %rax
    or $permission_map_end - task_states - 1, %rax
    mov %rax, global_descriptors + {first_task_state}
    mov ${first_task_state}, %eax
    ltr %ax
    lidt interrupt_descriptors_pointer
    pushq ${user_data}
    pushq $ring_3_stack_end
    pushq $0x2                  # RFLAGS: interrupts off
    pushq ${user_code}
    pushq $ring_3_start
    iretq

ring_3_start:
    mov ${user_data}, %eax
    mov %eax, %ds
    mov %eax, %es
    call start
    ud2
"#,
    processors = const PROCESSORS_MAX,
    task_state_stride = const TASK_STATE_STRIDE,
    permission_map_bytes = const PERMISSION_MAP_BYTES,
    ring_0_stack_bytes = const RING_0_STACK_BYTES,
    kernel_code = const KERNEL_CODE,
    user_code = const USER_CODE,
    user_data = const USER_DATA,
    first_task_state = const FIRST_TASK_STATE,
    options(att_syntax)
);
