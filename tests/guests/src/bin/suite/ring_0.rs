//! Instructions that KVMs without hardware do not emulate at ring 0, and those that no KVM emulates on a
//! device's registers: whoever carries them out, they do what the manuals say.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use runtime::entry::{KERNEL_CODE, USER_CODE, USER_DATA};
use runtime::interrupts::{Fault, begin_page_faults_with_clac, count, resume_fault_at, take_fault};
use runtime::privileged::{at_ring_0, cpuid};
use runtime::report::Test;
use runtime::time::{SECONDS, cycles, wait_until};
use runtime::{Machine, lapic, println, privileged, smp};

pub const TESTS: &[(&str, Test)] = &[
    ("ring0-breakpoint", breakpoint),
    ("ring0-interrupt", interrupt),
    ("ring0-exchange", exchange),
    ("ring0-bits", bits),
    ("ring0-access-flag", access_flag),
    ("ring0-state", state),
    ("ring0-vectors", vectors),
    ("ring0-time", time),
    ("ring0-faults", faults),
    ("ring0-single-step", single_step),
    ("ring0-contention", contention),
    ("ring0-unknown", unknown),
    ("ring3-device-vectors", device_vectors),
    ("ring3-unknown", unknown_at_ring_3),
    ("ring3-system-call", system_call),
    ("ring0-exits", exits),
    ("completion-cost", cost),
    ("completion-loop", repeat),
];

const BREAKPOINT: u8 = 3;
const INTERRUPT: u8 = 0x91;
/// Offsets of a virtio-mmio device's registers (virtio 1.3, 4.2.2): the magic value, and device features by
/// a selector.
const MAGIC: u64 = 0;
const FEATURES: u64 = 0x10;
const FEATURES_SELECTOR: u64 = 0x14;
const MAGIC_VALUE: u64 = 0x7472_6976;
/// An address at which the machine has nothing.
const UNCLAIMED: u64 = 0xd000_0000;
/// One that is not mapped, and one that cannot be.
const NOT_MAPPED: u64 = 0x80_0000_0000;
const NOT_CANONICAL: u64 = 1 << 63;

/// Sixteen bytes that CMPXCHG16B takes, and the eight after them for CMPXCHG8B.
#[repr(C, align(16))]
struct Shared([AtomicU64; 4]);

static SHARED: Shared = Shared([const { AtomicU64::new(0) }; 4]);

/// INT3 reaches its handler and returns behind itself.
fn breakpoint(_: &Machine) {
    extern "C" fn three(_: u64) -> u64 {
        // SAFETY: the handler counts and returns.
        unsafe { asm!("int3", "int3", "int3") };
        7
    }
    let before = count(BREAKPOINT);
    assert_eq!(at_ring_0(three, 0), 7);
    assert_eq!(count(BREAKPOINT), before + 3);
}

/// INT n reaches its handler and returns behind itself.
fn interrupt(_: &Machine) {
    extern "C" fn two(_: u64) -> u64 {
        // SAFETY: the handler counts and returns.
        unsafe { asm!("int {number}", "int {number}", number = const INTERRUPT) };
        9
    }
    let before = count(INTERRUPT);
    assert_eq!(at_ring_0(two, 0), 9);
    assert_eq!(count(INTERRUPT), before + 2);
}

/// One CMPXCHG16B and one CMPXCHG8B with what memory has, and one each with something else.
fn exchange(_: &Machine) {
    /// Which of the four stored, a bit each.
    extern "C" fn both(place: u64) -> u64 {
        let stored;
        // SAFETY: `place` is 24 bytes of ours, aligned to 16; RBX is put back.
        unsafe {
            asm!(
                "push rbx",
                "xor r8d, r8d",
                "mov rax, 0x1111",
                "mov rdx, 0x2222",
                "mov rbx, 0x3333",
                "mov rcx, 0x4444",
                "lock cmpxchg16b [rdi]",
                "setz r8b",
                "mov rax, 0x1111",
                "cmpxchg16b [rdi]",
                "setz al",
                "movzx eax, al",
                "lea r8, [r8 + rax * 2]",
                "mov eax, 0x5555",
                "mov edx, 0x6666",
                "mov ebx, 0x7777",
                "mov ecx, 0x8888",
                "lock cmpxchg8b [rdi + 16]",
                "setz al",
                "movzx eax, al",
                "lea r8, [r8 + rax * 4]",
                "cmpxchg8b [rdi + 16]",
                "setz al",
                "movzx eax, al",
                "lea r8, [r8 + rax * 8]",
                "pop rbx",
                inout("rdi") place => _,
                out("rax") _,
                out("rcx") _,
                out("rdx") _,
                out("r8") stored,
            );
        }
        stored
    }
    let [low, high, narrow, _] = &SHARED.0;
    low.store(0x1111, Ordering::SeqCst);
    high.store(0x2222, Ordering::SeqCst);
    narrow.store(0x6666_0000_5555, Ordering::SeqCst);
    assert_eq!(at_ring_0(both, address()), 0b0101);
    assert_eq!(low.load(Ordering::SeqCst), 0x3333);
    assert_eq!(high.load(Ordering::SeqCst), 0x4444);
    assert_eq!(narrow.load(Ordering::SeqCst), 0x8888_0000_7777);
}

/// POPCNT of registers and memory, wide and narrow.
fn bits(_: &Machine) {
    if !has(1, 2, 23) {
        return println!("no POPCNT");
    }
    extern "C" fn all(value: u64) -> u64 {
        let (wide, narrow, memory): (u64, u64, u64);
        // SAFETY: changes registers, and reads the stack.
        unsafe {
            asm!(
                "popcnt {wide}, {value}",
                "popcnt {narrow:e}, {value:e}",
                "push {value}",
                "popcnt {memory}, qword ptr [rsp]",
                "lea rsp, [rsp + 8]",
                value = in(reg) value,
                wide = out(reg) wide,
                narrow = out(reg) narrow,
                memory = out(reg) memory,
            );
        }
        wide | narrow << 8 | memory << 16
    }
    assert_eq!(at_ring_0(all, 0xffff_0001_0000_00ff), 0x19_0819);
    assert_eq!(at_ring_0(all, 0), 0);
}

/// STAC and CLAC set and clear RFLAGS.AC where there is SMAP.
fn access_flag(_: &Machine) {
    extern "C" fn both(_: u64) -> u64 {
        let (set, cleared): (u64, u64);
        // SAFETY: no alignment check at ring 0, so that the flag does nothing here.
        unsafe {
            asm!("stac", "pushfq", "pop {set}", "clac", "pushfq", "pop {cleared}",
                set = out(reg) set, cleared = out(reg) cleared);
        }
        set >> 18 & 1 | (cleared >> 18 & 1) << 1
    }
    if !has(7, 1, 20) {
        return println!("no SMAP");
    }
    assert_eq!(at_ring_0(both, 0), 1);
}

/// A vector register through XSAVE and its variants, and back.
fn state(_: &Machine) {
    #[repr(C, align(64))]
    struct Area([u8; 4096]);
    static mut AREA: Area = Area([0; 4096]);

    /// Turns the feature on, with x87, SSE and what of AVX there is; gives XCR0.
    extern "C" fn enable(components: u64) -> u64 {
        let value: u64;
        // SAFETY: only turns on what CPUID has.
        unsafe {
            asm!(
                "mov {scratch}, cr4",
                "or {scratch}, 0x40000",
                "mov cr4, {scratch}",
                "xor ecx, ecx",
                "xor edx, edx",
                "xsetbv",
                "xgetbv",
                scratch = out(reg) _,
                inout("rax") components => value,
                out("rcx") _,
                out("rdx") _,
            );
        }
        value
    }
    /// The low half of XMM5 after it went through the area by the variant in the lowest bits.
    extern "C" fn through(variant: u64) -> u64 {
        let result;
        // SAFETY: the area is large enough for these components.
        unsafe {
            asm!(
                "movq xmm5, {value}",
                "mov eax, 7",
                "xor edx, edx",
                "cmp {variant}, 1",
                "ja 4f",
                "je 3f",
                "xsave64 [{area}]",
                "jmp 5f",
                "3: xsaveopt64 [{area}]",
                "jmp 5f",
                "4: xsavec64 [{area}]",
                "5: pxor xmm5, xmm5",
                "mov eax, 7",
                "xrstor64 [{area}]",
                "movq {result}, xmm5",
                value = in(reg) 0x0123_4567_89ab_cdef_u64 + variant,
                variant = in(reg) variant,
                area = in(reg) &raw mut AREA as u64,
                result = out(reg) result,
                out("rax") _,
                out("rdx") _,
                out("xmm5") _,
            );
        }
        result
    }
    if !has(1, 2, 26) {
        return println!("no XSAVE");
    }
    let components = u64::from(cpuid(0xd, 0)[0]) & 7;
    assert_eq!(at_ring_0(enable, components), components);
    let variants = cpuid(0xd, 1)[0];
    for (variant, there) in [(0, true), (1, variants & 1 != 0), (2, variants & 2 != 0)] {
        if there {
            assert_eq!(
                at_ring_0(through, variant),
                0x0123_4567_89ab_cdef + variant,
                "variant {variant}"
            );
        }
    }
}

/// Sixteen bytes through memory, aligned and not.
fn vectors(machine: &Machine) {
    extern "C" fn copy(place: u64) -> u64 {
        let result: u64;
        // SAFETY: `place` is 32 bytes of ours.
        unsafe {
            asm!(
                "movups xmm4, [{place}]",
                "movups [{place} + 7], xmm4",
                "movq {result}, xmm4",
                place = in(reg) place,
                result = out(reg) result,
                out("xmm4") _,
            );
        }
        result
    }
    let [low, high, third, _] = &SHARED.0;
    low.store(0x8877_6655_4433_2211, Ordering::SeqCst);
    high.store(0, Ordering::SeqCst);
    third.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(at_ring_0(copy, address()), 0x8877_6655_4433_2211);
    assert_eq!(low.load(Ordering::SeqCst), 0x1177_6655_4433_2211);
    assert_eq!(high.load(Ordering::SeqCst), 0x0088_7766_5544_3322);
    assert_eq!(third.load(Ordering::SeqCst), 0xff00_0000_0000_0000);
    let device = machine.number("address", 0xfe00_0000);
    assert_eq!(at_ring_0(read_vector, device + MAGIC), MAGIC_VALUE);
    assert_eq!(at_ring_0(version, device), 1);
    assert_eq!(at_ring_0(read_wide_vector, UNCLAIMED), u64::MAX);
}

global_asm!(
    r#"
    .text
    .global system_call_entry
system_call_entry:              # CS and flags, to the program that called
    pushfq
    pop rax
    shl rax, 16
    mov ax, cs
    mov rdx, rsp
    lea rsp, [rsp - 256]
    push {user_data}
    push rdx
    push r11
    push {user_code}
    push rcx
    iretq
"#,
    user_data = const USER_DATA,
    user_code = const USER_CODE,
);

unsafe extern "C" {
    static system_call_entry: u8;
}

/// SYSCALL reaches a kernel's entry point at ring 0, in pages that are the kernel's alone; a jump does not.
fn system_call(_: &Machine) {
    /// Where memory is a second time, for ring 0 alone: the first entry of the upper half.
    const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
    const EFER: u32 = 0xc000_0080;
    const STAR: u32 = 0xc000_0081;
    const LSTAR: u32 = 0xc000_0082;
    const FMASK: u32 = 0xc000_0084;
    const FLAG_DIRECTION: u64 = 1 << 10;
    const PAGE_FAULT: u64 = 14;
    const FETCH_BY_PROGRAM: u64 = 0b10100;
    /// KVMs with separate tables for rings do not agree on whether such a page is present.
    const PRESENT: u64 = 1;

    extern "C" fn map(_: u64) -> u64 {
        let table: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mov {}, cr3", out(reg) table) };
        let table = (table & !0xfff) as *mut u64;
        // SAFETY: the entry is unused, and what it maps is there already; it takes the user bit away.
        unsafe { table.add(256).write_volatile(table.read_volatile() & !4) };
        0
    }
    if !has(7, 1, 20) {
        return println!("no SMAP");
    }
    let entry = KERNEL_HALF + &raw const system_call_entry as u64;
    at_ring_0(map, 0);
    begin_page_faults_with_clac();
    privileged::write_msr(EFER, privileged::read_msr(EFER) | 1);
    privileged::write_msr(STAR, u64::from(KERNEL_CODE) << 32);
    privileged::write_msr(LSTAR, entry);
    privileged::write_msr(FMASK, FLAG_DIRECTION);

    for _ in 0..3 {
        let (seen, flags, address, after): (u64, u64, u64, u64);
        // SAFETY: the entry point returns here with the stack as it is; the direction flag is taken back.
        unsafe {
            asm!(
                "std",
                "lea {after}, [rip + 2f]",
                "syscall",
                "2: cld",
                after = out(reg) after,
                out("rax") seen,
                out("rcx") address,
                out("rdx") _,
                out("r11") flags,
            );
        }
        assert_eq!(seen & 0xffff, u64::from(KERNEL_CODE), "CS");
        assert_eq!(seen >> 16 & FLAG_DIRECTION, 0, "FMASK");
        assert_eq!(flags & FLAG_DIRECTION, FLAG_DIRECTION, "R11");
        assert_eq!(address, after, "RCX");
    }

    // SAFETY: the fault of the jump goes on at the label.
    unsafe {
        asm!(
            "lea rdi, [rip + 2f]",
            "call {resume}",
            "xor ecx, ecx",
            "jmp r12",
            "2:",
            resume = sym resume,
            in("r12") entry,
            clobber_abi("C"),
        );
    }
    let fault = take_fault().expect("a fault of the jump");
    assert_eq!(
        (fault.vector, fault.error_code | PRESENT, fault.address),
        (PAGE_FAULT, FETCH_BY_PROGRAM | PRESENT, entry)
    );
}

/// The same device by the same instructions, from a program.
fn device_vectors(machine: &Machine) {
    let device = machine.number("address", 0xfe00_0000);
    assert_eq!(read_vector(device + MAGIC), MAGIC_VALUE);
    assert_eq!(version(device), 1);
    assert_eq!(read_wide_vector(UNCLAIMED), u64::MAX);
}

/// Four bytes of a register, by a vector register.
extern "C" fn read_vector(address: u64) -> u64 {
    let value: u32;
    // SAFETY: a read of a device's register, which has no effect of its own.
    unsafe {
        asm!("movd xmm0, dword ptr [{address}]", "movd {value:e}, xmm0",
            address = in(reg) address, value = out(reg) value, out("xmm0") _);
    }
    u64::from(value)
}

/// All of sixteen bytes, of which both halves are ANDed.
extern "C" fn read_wide_vector(address: u64) -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: a read of an address that nobody has.
    unsafe {
        asm!("movups xmm0, [{address}]", "movq {low}, xmm0", "psrldq xmm0, 8", "movq {high}, xmm0",
            address = in(reg) address, low = out(reg) low, high = out(reg) high, out("xmm0") _);
    }
    low & high
}

/// VIRTIO_F_VERSION_1 of a virtio-mmio device, selected and read by a vector register.
extern "C" fn version(device: u64) -> u64 {
    let features: u32;
    // SAFETY: the selector decides about nothing but the next read.
    unsafe {
        asm!(
            "movd xmm0, {one:e}",
            "movd dword ptr [{device} + {selector}], xmm0",
            "movd xmm0, dword ptr [{device} + {features}]",
            "movd {value:e}, xmm0",
            one = in(reg) 1,
            device = in(reg) device,
            selector = const FEATURES_SELECTOR,
            features = const FEATURES,
            value = out(reg) features,
            out("xmm0") _,
        );
    }
    u64::from(features & 1)
}

/// RDTSCP goes up and tells the processor's number.
fn time(_: &Machine) {
    const TSC_AUX: u32 = 0xc000_0103;
    extern "C" fn twice(_: u64) -> u64 {
        let (first, second, number): (u64, u64, u32);
        // SAFETY: changes registers.
        unsafe {
            asm!(
                "rdtscp", "shl rdx, 32", "lea {first}, [rdx + rax]",
                "rdtscp", "shl rdx, 32", "lea {second}, [rdx + rax]",
                first = out(reg) first,
                second = out(reg) second,
                out("rax") _,
                out("ecx") number,
                out("rdx") _,
            );
        }
        u64::from(second > first) << 32 | u64::from(number)
    }
    if !has(0x8000_0001, 3, 27) {
        return println!("no RDTSCP");
    }
    privileged::write_msr(TSC_AUX, 0x1234);
    assert_eq!(at_ring_0(twice, 0), 1 << 32 | 0x1234);
}

/// Where an instruction that faults stands, and the fault.
extern "C" fn faulting(which: u64) -> u64 {
    let place: u64;
    macro_rules! faulting {
        ($($instruction:literal),* ; $($operands:tt)*) => {
            // SAFETY: the handler goes on at the label, with the stack as it is; nothing else happens.
            unsafe {
                asm!(
                    "push rbx",
                    "lea rdi, [rip + 3f]",
                    "call {resume}",
                    "lea r12, [rip + 2f]",
                    "mov rsi, {address}",
                    "xor r11d, r11d",
                    "2:",
                    $($instruction,)*
                    "3:",
                    "pop rbx",
                    resume = sym resume,
                    address = in(reg) $($operands)*,
                    out("r12") place,
                    clobber_abi("C"),
                )
            }
        };
    }
    match which {
        0 => faulting!("ud2"; 0_u64),
        1 => faulting!("popcnt rax, qword ptr [rsi]"; NOT_MAPPED),
        2 => faulting!("lock cmpxchg16b [rsi]"; NOT_MAPPED + 64),
        3 => faulting!("cmpxchg16b [rsi]"; address() + 8),
        4 => faulting!("popcnt rax, qword ptr [rsi]"; NOT_CANONICAL),
        _ => faulting!("movaps xmm0, [rsi]"; address() + 1),
    }
    place
}

extern "C" fn resume(address: u64) {
    resume_fault_at(address);
}

/// #UD, #PF with error code and CR2, #GP: by name, and at the instruction.
fn faults(_: &Machine) {
    let expected = [
        (6, 0, None),
        (14, 0, Some(NOT_MAPPED)),
        (14, 2, Some(NOT_MAPPED + 64)),
        (13, 0, None),
        (13, 0, None),
        (13, 0, None),
    ];
    for (which, (vector, error_code, address)) in (0..).zip(expected) {
        let instruction = at_ring_0(faulting, which);
        let fault = take_fault().unwrap_or_else(|| panic!("no fault of {which}"));
        let address = address.unwrap_or(fault.address);
        let wanted = Fault {
            vector,
            error_code,
            instruction,
            address,
        };
        assert_eq!(fault, wanted, "{which}");
    }
}

/// A trap flag that is set before an instruction traps behind it, with DR6.BS.
fn single_step(_: &Machine) {
    extern "C" fn step(_: u64) -> u64 {
        let (behind, counted, dr6): (u64, u64, u64);
        // SAFETY: the handler clears the flag and goes on at the label.
        unsafe {
            asm!(
                "lea rdi, [rip + 3f]",
                "call {resume}",
                "lea r12, [rip + 2f]",
                "mov r13d, 0xff",
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "popfq",
                "popcnt r13, r13",
                "2: nop",
                "nop",
                "3: mov r14, dr6",
                resume = sym resume,
                out("r12") behind,
                out("r13") counted,
                out("r14") dr6,
                clobber_abi("C"),
            );
        }
        assert_eq!(counted, 8, "the instruction is over");
        assert_eq!(dr6 >> 14 & 1, 1, "DR6.BS in {dr6:#x}");
        behind
    }
    let behind = at_ring_0(step, 0);
    let fault = take_fault().expect("a debug exception");
    assert_eq!((fault.vector, fault.instruction), (1, behind));
}

static CONTENTIONS: AtomicU64 = AtomicU64::new(0);
static CONTENDERS_DONE: AtomicU64 = AtomicU64::new(0);

/// Adds one to both numbers of [`SHARED`], `count` times, by locked exchanges alone.
extern "C" fn contend(count: u64) -> u64 {
    // SAFETY: the numbers are ours, and aligned; RBX is put back.
    unsafe {
        asm!(
            "push rbx",
            "2: mov rax, [rdi]",
            "mov rdx, [rdi + 8]",
            "3: mov rbx, rax",
            "mov rcx, rdx",
            "add rbx, 1",
            "adc rcx, 0",
            "lock cmpxchg16b [rdi]",
            "jne 3b",
            "mov eax, [rdi + 16]",
            "mov edx, [rdi + 20]",
            "4: mov ebx, eax",
            "mov ecx, edx",
            "add ebx, 1",
            "adc ecx, 0",
            "lock cmpxchg8b [rdi + 16]",
            "jne 4b",
            "dec r8",
            "jnz 2b",
            "pop rbx",
            inout("rdi") address() => _,
            inout("r8") count => _,
            out("rax") _,
            out("rcx") _,
            out("rdx") _,
        );
    }
    0
}

/// Runs on the second processor.
extern "C" fn contender(_: u64) -> ! {
    lapic::enable();
    at_ring_0(contend, CONTENTIONS.load(Ordering::SeqCst));
    CONTENDERS_DONE.fetch_add(1, Ordering::SeqCst);
    privileged::halt_for_ever()
}

/// Two processors add to the same numbers of 128 and 64 bits, both over a carry: no addition is lost.
fn contention(machine: &Machine) {
    const START: u64 = u64::MAX - 100;
    let each = machine.number("count", 1000);
    let [low, high, narrow, _] = &SHARED.0;
    low.store(START, Ordering::SeqCst);
    high.store(0, Ordering::SeqCst);
    narrow.store(0xffff_ff00, Ordering::SeqCst);
    CONTENTIONS.store(each, Ordering::SeqCst);
    lapic::enable();
    smp::prepare(contender);
    smp::start(1);
    smp::start_again(1);
    at_ring_0(contend, each);
    assert!(
        wait_until(20 * SECONDS, || CONTENDERS_DONE.load(Ordering::SeqCst) == 1),
        "the other processor does not end"
    );
    assert_eq!(low.load(Ordering::SeqCst), START.wrapping_add(2 * each));
    assert_eq!(high.load(Ordering::SeqCst), 1);
    assert_eq!(narrow.load(Ordering::SeqCst), 0xffff_ff00 + 2 * each);
}

/// A number of ten bytes out of a device, which nobody emulates.
extern "C" fn load_decimal(address: u64) -> u64 {
    // SAFETY: an address that nobody has; the number is dropped.
    unsafe { asm!("fbld tbyte ptr [{}]", "fstp st(0)", in(reg) address) };
    0
}

/// At ring 0 that is the machine's end.
fn unknown(_: &Machine) {
    at_ring_0(load_decimal, UNCLAIMED);
    panic!("the machine did not end");
}

/// At ring 3 it is an invalid opcode.
fn unknown_at_ring_3(_: &Machine) {
    // SAFETY: the handler goes on at the label.
    unsafe {
        asm!(
            "lea rdi, [rip + 3f]",
            "call {resume}",
            "mov rsi, {address}",
            "xor r11d, r11d",
            "fbld tbyte ptr [rsi]",
            "3:",
            resume = sym resume,
            address = in(reg) UNCLAIMED,
            clobber_abi("C"),
        );
    }
    let fault = take_fault().expect("an invalid opcode");
    assert_eq!(fault.vector, 6);
}

/// What `count` completions cost at ring 0, and then as many reads of a port.
fn cost(machine: &Machine) {
    measure(machine, "completions", popcnt);
    measure(machine, "exits", read_port);
}

/// What `count` reads of a port cost at ring 0.
fn exits(machine: &Machine) {
    measure(machine, "exits", read_port);
}

fn measure(machine: &Machine, name: &str, function: Loop) {
    let number = machine.number("count", 1000);
    let start = cycles();
    at_ring_0(function, number);
    println!("{} cycles for {number} {name}", cycles() - start);
}

/// `count` instructions of the kind `kind`, for measurements from outside. For `xsave`, `ring0-state` comes
/// first.
fn repeat(machine: &Machine) {
    let wanted = machine.option("kind").unwrap_or("popcnt");
    let known = KINDS.iter().find(|(name, _)| *name == wanted);
    let (_, function) = known.unwrap_or_else(|| panic!("unknown kind {wanted}"));
    at_ring_0(*function, machine.number("count", 1000));
}

type Loop = extern "C" fn(u64) -> u64;

const KINDS: [(&str, Loop); 5] = [
    ("popcnt", popcnt),
    ("stac", stac),
    ("cmpxchg16b", exchange_pairs),
    ("xsave", save_and_restore),
    ("port", read_port),
];

macro_rules! loops {
    ($($name:ident: $($instruction:literal),*;)*) => {
        $(extern "C" fn $name(count: u64) -> u64 {
            #[repr(C, align(64))]
            struct Area([u8; 4096]);
            static mut AREA: Area = Area([0; 4096]);
            // SAFETY: changes registers and the area; RBX is put back.
            unsafe {
                asm!(
                    "push rbx",
                    "2:",
                    $($instruction,)*
                    "dec r8",
                    "jnz 2b",
                    "pop rbx",
                    inout("r8") count => _,
                    in("rdi") &raw mut AREA as u64,
                    out("rax") _, out("rcx") _, out("rdx") _,
                );
            }
            0
        })*
    };
}

loops! {
    popcnt: "popcnt rcx, rcx";
    stac: "stac", "clac";
    exchange_pairs: "lock cmpxchg16b [rdi]";
    save_and_restore: "mov eax, 7", "xor edx, edx", "xsave64 [rdi]", "xrstor64 [rdi]";
    read_port: "in al, 0x80";
}

/// Where [`SHARED`] is.
fn address() -> u64 {
    &raw const SHARED as u64
}

/// Whether CPUID has bit `bit` of register `register` (EAX, EBX, ECX, EDX) of `leaf`.
fn has(leaf: u32, register: usize, bit: u32) -> bool {
    cpuid(leaf, 0)[register] >> bit & 1 != 0
}
