//! A program at ring 0 on the host's KVM, which executes what software KVMs do not emulate. On a KVM in
//! hardware it runs as well, mostly without a completion.

use std::arch::global_asm;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bus::{Effect, MmioBus, MmioDevice, PioBus, PioDevice};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_segment};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::config::IrqchipMode;
use crate::interrupts::Interrupts;
use crate::kvm::Host;
use crate::lifecycle::GuestEnd;
use crate::memory;
use crate::metrics::Counters;
use crate::vcpu::run_loop::Leave;
use crate::vcpu::{Vcpu, VcpuContext, VcpuControl};

const MEMORY_BYTES: usize = 0x40_0000;
const PAGE_TABLES: u64 = 0x1000;
const DESCRIPTORS: u64 = 0x5000;
const INTERRUPT_DESCRIPTORS: u64 = 0x6000;
const RESULTS: u64 = 0x7000;
const CODE: u64 = 0x8000;
const XSAVE_AREA: u64 = 0xa000;
const STACK: u64 = 0xf000;
/// In the third page of 2 MiB, which is not RAM.
const DEVICE: u64 = 0x40_0000;

global_asm!(
    "
    .pushsection .rodata.completion_guest, \"a\", @progbits
    .global completion_guest, completion_guest_breakpoint, completion_guest_invalid_opcode
    .global completion_guest_page_fault, completion_guest_protection, completion_guest_loop
    .global completion_guest_end
completion_guest:
    mov rbp, 0x7000             # results
    # 0: breakpoints taken; 8: invalid opcodes; 16: page faults; 24: CR2; 32: error code; 40: protection
    int3
    ud2
    # 48: cmpxchg16b that stores, and its flag
    mov rax, [rbp + 64]
    mov rdx, [rbp + 72]
    mov rbx, 0x1111
    mov rcx, 0x2222
    lock cmpxchg16b [rbp + 64]
    setz byte ptr [rbp + 48]
    # ... and one that does not
    mov rax, 1
    cmpxchg16b [rbp + 64]
    setz byte ptr [rbp + 49]
    mov [rbp + 80], rax
    mov [rbp + 88], rdx
    mov rcx, 0xf0f0
    popcnt rax, rcx
    mov [rbp + 96], rax
    stac
    pushfq
    pop rax
    mov [rbp + 104], rax
    clac
    pushfq
    pop rax
    mov [rbp + 112], rax
    # XCR0 as it may be, then a vector through registers, state and memory.
    xor ecx, ecx
    xor edx, edx
    mov eax, [rbp + 120]
    xsetbv
    xgetbv
    mov [rbp + 128], rax
    movdqu xmm5, [rbp + 64]
    mov rdi, 0xa000
    mov eax, 7
    xor edx, edx
    xsave64 [rdi]
    movdqu xmm5, [rbp + 80]
    mov eax, 7
    xrstor64 [rdi]
    movdqu [rbp + 144], xmm5
    # A device by 16 bytes.
    mov rsi, 0x400000
    movups [rsi], xmm5
    movups xmm6, [rsi + 16]
    movups [rbp + 160], xmm6
    # Exceptions of instructions that KVM does not know: not present, not aligned.
    mov rsi, 0x600000
    popcnt rax, qword ptr [rsi]
    lea rsi, [rbp + 65]
    cmpxchg16b [rsi]
    rdrand rax
    setc byte ptr [rbp + 50]
    out 0x80, al
    # The same for measurements, without end.
completion_guest_loop:
    mov rcx, [rbp + 176]
2:  popcnt rax, rcx
    dec rcx
    jnz 2b
    out 0x80, al
    mov rcx, [rbp + 176]
3:  in al, 0x81
    dec rcx
    jnz 3b
    out 0x80, al
completion_guest_breakpoint:
    inc qword ptr [rbp]
    iretq
completion_guest_invalid_opcode:
    inc qword ptr [rbp + 8]
    add qword ptr [rsp], 2
    iretq
completion_guest_page_fault:
    inc qword ptr [rbp + 16]
    mov rax, cr2
    mov [rbp + 24], rax
    pop qword ptr [rbp + 32]
    add qword ptr [rsp], 5
    iretq
completion_guest_protection:
    inc qword ptr [rbp + 40]
    add rsp, 8
    add qword ptr [rsp], 4
    iretq
completion_guest_end:
    .popsection
    "
);

unsafe extern "C" {
    static completion_guest: u8;
    static completion_guest_breakpoint: u8;
    static completion_guest_invalid_opcode: u8;
    static completion_guest_page_fault: u8;
    static completion_guest_protection: u8;
    static completion_guest_end: u8;
}

/// Offset of a label in the program.
fn offset(label: *const u8) -> u64 {
    let start = (&raw const completion_guest).addr();
    u64::try_from(label.addr() - start).expect("a small program")
}

/// Ends the program at a write, and counts reads.
#[derive(Debug)]
struct Port;

impl PioDevice for Port {
    fn read(&mut self, _: u16, _: &mut [u8]) {}
    fn write(&mut self, _: u16, _: &[u8]) -> Effect {
        Effect::PowerOff
    }
}

#[derive(Debug, Default)]
struct Registers {
    reads: Vec<(u64, usize)>,
    writes: Vec<(u64, Vec<u8>)>,
}

impl MmioDevice for Registers {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.reads.push((offset, data.len()));
        data.fill(u8::try_from(self.reads.len()).expect("few reads"));
    }
    fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        self.writes.push((offset, data.to_vec()));
        Effect::None
    }
}

struct Guest {
    vcpu: Vcpu,
    memory: memory::GuestMemory,
    device: Arc<Mutex<Registers>>,
    counters: Arc<Counters>,
}

impl Guest {
    /// A vCPU at the first instruction of the program.
    fn new(synchronised_registers: bool, runs_ahead: bool) -> Self {
        let host = Host::open().expect("a KVM");
        let vm = Arc::new(host.kvm().create_vm().expect("a VM"));
        let ranges = [(GuestAddress(0), MEMORY_BYTES)];
        let memory = Arc::new(GuestMemoryMmap::<()>::from_ranges(&ranges).expect("memory"));
        memory::register(&vm, &memory).expect("a slot");
        fill(&memory);
        let control = Arc::new(VcpuControl::default());
        let interrupts =
            Interrupts::new(IrqchipMode::Split, &vm, &control).expect("an interrupt controller");
        let (mut pio, mut mmio) = (PioBus::default(), MmioBus::default());
        pio.insert(0x80, 2, Arc::new(Mutex::new(Port)))
            .expect("ports");
        let device = Arc::new(Mutex::new(Registers::default()));
        mmio.insert(DEVICE, 0x1000, Arc::clone(&device) as _)
            .expect("registers");
        let fd = vm.create_vcpu(0).expect("a vCPU");
        let cpuid = host.kvm().get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        fd.set_cpuid2(&cpuid.expect("supported features"))
            .expect("features");
        let mut sregs = fd.get_sregs().expect("system registers");
        let code = kvm_segment {
            limit: u32::MAX,
            selector: 8,
            type_: 0xb,
            present: 1,
            s: 1,
            l: 1,
            g: 1,
            ..kvm_segment::default()
        };
        let data = kvm_segment {
            selector: 16,
            type_: 3,
            l: 0,
            db: 1,
            ..code
        };
        sregs.cs = code;
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        let table = |base, limit| kvm_dtable {
            base,
            limit,
            padding: [0; 3],
        };
        sregs.gdt = table(DESCRIPTORS, 23);
        sregs.idt = table(INTERRUPT_DESCRIPTORS, 16 * 32 - 1);
        sregs.cr0 = 0x8001_0033;
        sregs.cr3 = PAGE_TABLES;
        // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
        sregs.cr4 = 0x4_0620;
        sregs.efer = 0x500;
        fd.set_sregs(&sregs).expect("system registers");
        let mut regs = fd.get_regs().expect("registers");
        regs.rip = CODE;
        regs.rsp = STACK;
        regs.rflags = 2;
        fd.set_regs(&regs).expect("registers");
        let counters = Arc::new(Counters::new("", 1));
        let context = VcpuContext {
            pio: Arc::new(pio),
            mmio: Arc::new(mmio),
            interrupts,
            memory: Arc::clone(&memory),
            completion: true,
            counters: Arc::clone(&counters),
            synchronised_registers,
            run_ahead: runs_ahead.then(Arc::default),
        };
        Self {
            vcpu: Vcpu::new(0, fd, context, None),
            memory,
            device,
            counters,
        }
    }

    fn run(&mut self) {
        match self.vcpu.run(&VcpuControl::default()) {
            Leave::GuestEnd(GuestEnd::PowerOff) => {}
            other => panic!("{other:?}; results {:x?}", self.results()),
        }
    }

    fn results(&self) -> Vec<u64> {
        (0..24).map(|index| self.result(index * 8)).collect()
    }

    fn result(&self, offset: u64) -> u64 {
        let address = GuestAddress(RESULTS + offset);
        self.memory.read_obj(address).expect("RAM")
    }
}

/// Page tables, descriptors, the program and what it begins with.
fn fill(memory: &GuestMemoryMmap<()>) {
    let put = |address: u64, value: u64| {
        memory.write_obj(value, GuestAddress(address)).expect("RAM");
    };
    put(PAGE_TABLES, PAGE_TABLES + 0x1003);
    put(PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2003);
    for page in 0..3 {
        put(PAGE_TABLES + 0x2000 + 8 * page, (page << 21) | 0x83);
    }
    put(DESCRIPTORS + 8, 0x00af_9b00_0000_ffff);
    put(DESCRIPTORS + 16, 0x00cf_9300_0000_ffff);
    for (vector, label) in [
        (3, &raw const completion_guest_breakpoint),
        (6, &raw const completion_guest_invalid_opcode),
        (13, &raw const completion_guest_protection),
        (14, &raw const completion_guest_page_fault),
    ] {
        let handler = CODE + offset(label);
        let gate = handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        put(INTERRUPT_DESCRIPTORS + 16 * vector, gate);
        put(INTERRUPT_DESCRIPTORS + 16 * vector + 8, 0);
    }
    let length = offset(&raw const completion_guest_end);
    let length = usize::try_from(length).expect("a small program");
    // SAFETY: the program between its two labels, which is constant.
    let program = unsafe { std::slice::from_raw_parts(&raw const completion_guest, length) };
    memory
        .write_slice(program, GuestAddress(CODE))
        .expect("RAM");
    put(RESULTS + 64, 0xaaaa);
    put(RESULTS + 72, 0xbbbb);
    put(RESULTS + 120, 7);
    put(RESULTS + 176, 2000);
}

fn runs(synchronised_registers: bool, runs_ahead: bool) -> Guest {
    let mut guest = Guest::new(synchronised_registers, runs_ahead);
    guest.run();
    let result = |offset| guest.result(offset);
    assert_eq!(result(0), 1, "breakpoints");
    assert_eq!(result(8), 1, "invalid opcodes");
    assert_eq!([result(64), result(72)], [0x1111, 0x2222], "stored");
    assert_eq!(
        result(48) & 0xffff,
        1,
        "the first stores, the second does not"
    );
    assert_eq!([result(80), result(88)], [0x1111, 0x2222], "loaded");
    assert_eq!(result(96), 8, "bits");
    assert_eq!((result(104) >> 18 & 1, result(112) >> 18 & 1), (1, 0), "AC");
    assert_eq!(result(128), 7, "XCR0");
    assert_eq!([result(144), result(152)], [0x1111, 0x2222], "the vector");
    let image: u64 = guest
        .memory
        .read_obj(GuestAddress(XSAVE_AREA + 160 + 16 * 5))
        .expect("RAM");
    assert_eq!(image, 0x1111, "the vector in the state's image");
    let device = guest.device.lock().expect("nobody panicked");
    let written: Vec<u8> = device
        .writes
        .iter()
        .flat_map(|(_, data)| data.clone())
        .collect();
    assert_eq!(device.writes[0].0, 0);
    assert_eq!(written[..2], [0x11, 0x11]);
    assert_eq!(written.len(), 16);
    assert_eq!(device.reads, [(16, 8), (24, 8)]);
    assert_eq!(result(160), 0x0101_0101_0101_0101);
    assert_eq!(result(168), 0x0202_0202_0202_0202);
    assert_eq!(
        (result(16), result(24), result(32)),
        (1, 0x60_0000, 0),
        "the page fault, its address and code"
    );
    assert_eq!(result(40), 1, "protection faults");
    assert_eq!(result(48) >> 16 & 1, 1, "a random number");
    drop(device);
    guest
}

#[test]
fn a_kernel_runs_what_kvm_does_not_emulate() {
    runs(true, false);
}

#[test]
fn a_kernel_runs_without_synchronised_registers() {
    runs(false, false);
}

/// Stepped by KVM, software or not, with what lies between the steps carried out here.
#[test]
fn a_kernel_runs_ahead_of_kvm() {
    for synchronised_registers in [true, false] {
        let guest = runs(synchronised_registers, true);
        let metrics = guest.counters.snapshot();
        assert!(metrics.vcpus[0].interpreted > 30, "{metrics:?}");
    }
}

/// Not a test of speed, but one whose output tells it.
#[test]
fn a_completion_costs_about_as_much_as_an_exit() {
    let mut guest = Guest::new(true, false);
    guest.run();
    let mut measure = || {
        let start = Instant::now();
        guest.run();
        start.elapsed() / 2000
    };
    let (completion, exit) = (measure(), measure());
    println!("a completion takes {completion:?}, a port's exit {exit:?}");
    assert_eq!(guest.result(96), 8);
}
