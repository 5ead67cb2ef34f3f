//! The shortest guest: its first instruction writes a byte to the POST port 0x80; then it writes one to
//! COM1 and resets the machine by the keyboard controller. No stack, no table, no interrupt.
//!
//! The instructions mean the same in 32-bit and in 64-bit mode, so that both boot protocols enter at the
//! same place.
#![no_std]
#![no_main]

core::arch::global_asm!(
    r#"
    .section .pvh_note, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .balign 4
    .quad entry_64

    .section .boot, "ax", @progbits
    .code64
    .global entry_64
entry_64:
    out %al, $0x80
    mov $0x03f8, %dx
    mov $'!', %al
    out %al, %dx
    mov $0xfe, %al
    out %al, $0x64
1:  hlt
    jmp 1b
"#,
    options(att_syntax)
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
