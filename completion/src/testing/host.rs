//! One instruction on the processor that runs the tests, from any state to the state behind it, faults
//! included.
#![expect(unsafe_code, reason = "the processor is the reference")]

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Once;

use super::native::Area;
use crate::cpu::Registers;
use crate::memory::GuestMemory;

/// Bytes of memory that an instruction may use.
pub const MEMORY_BYTES: usize = 8192;
/// Where in the page of code the way back is: behind any instruction.
const RETURN: usize = 32;

/// What the assembly below works on.
#[repr(C)]
struct Frame {
    general: [u64; 16],
    rflags: u64,
    code: u64,
    area: *mut Area,
    own: *mut Area,
}

std::arch::global_asm!(
    ".pushsection .text.completion_host_execute, \"ax\", @progbits",
    "completion_host_execute:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "pushfq",
    "mov eax, -1",
    "mov edx, -1",
    "mov rcx, [rdi + 152]",
    "xsave64 [rcx]",
    "mov rcx, [rdi + 144]",
    "xrstor64 [rcx]",
    "push qword ptr [rdi + 136]",
    "push qword ptr [rdi + 128]",
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "popfq",
    "call [rsp]",
    "pushfq",
    "push rdi",
    "mov rdi, [rsp + 32]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "pop rax",
    "mov [rdi + 56], rax",
    "pop rax",
    "mov [rdi + 128], rax",
    "add rsp, 8",
    "cld",
    "mov eax, -1",
    "mov edx, -1",
    "mov rcx, [rdi + 144]",
    "xsave64 [rcx]",
    "mov rcx, [rdi + 152]",
    "xrstor64 [rcx]",
    "popfq",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    ".popsection",
);

unsafe extern "C" {
    fn completion_host_execute(frame: *mut Frame);
}

thread_local! {
    /// The code page that runs on this thread, and the signal that came there; zeros for none.
    static RUNNING: Cell<(usize, i32)> = const { Cell::new((0, 0)) };
}

/// Ends the instruction that raised the signal, and lets any other signal kill the process.
extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel's context of the interrupted thread, which nobody else uses now.
    let rip = unsafe { &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    let (page, _) = RUNNING.get();
    if page != 0 && usize::try_from(*rip).is_ok_and(|rip| (page..page + RETURN).contains(&rip)) {
        RUNNING.set((page, signal));
        *rip = i64::try_from(page + RETURN).expect("an address of user space");
        return;
    }
    // SAFETY: puts back what processes begin with; the instruction then raises the signal again.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn catch_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [libc::SIGILL, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE] {
            // SAFETY: all zeros are a valid action.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            // SAFETY: the handler above does nothing that a signal handler must not.
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    });
}

/// Pages below 2 GiB, so that addresses are the same for code that has 32 bits of them.
fn map(bytes: usize, protection: i32) -> NonNull<u8> {
    // SAFETY: a new mapping, which takes nobody's place.
    let pages = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    assert_ne!(pages, libc::MAP_FAILED, "memory below 2 GiB");
    NonNull::new(pages.cast()).expect("not at address 0")
}

/// A place to execute at, and memory to execute on. The same memory, as guest memory at the same address, is
/// what the crate works on; `self.shadow` keeps the two apart.
#[derive(Debug)]
pub struct Host {
    code: NonNull<u8>,
    memory: NonNull<u8>,
    shadow: NonNull<u8>,
    own: Box<Area>,
}

/// How a native instruction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Completed,
    /// By this signal.
    Signal(i32),
}

impl Host {
    pub fn new() -> Self {
        catch_signals();
        let executable = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let data = libc::PROT_READ | libc::PROT_WRITE;
        Self {
            code: map(4096, executable),
            memory: map(MEMORY_BYTES, data),
            shadow: map(MEMORY_BYTES, data),
            own: Area::new(0),
        }
    }

    pub fn code_address(&self) -> u64 {
        u64::try_from(self.code.as_ptr().addr()).expect("an address")
    }

    pub fn memory_address(&self) -> u64 {
        u64::try_from(self.memory.as_ptr().addr()).expect("an address")
    }

    /// Fills the memory, for the processor and for the crate alike.
    pub fn fill(&mut self, data: &[u8; MEMORY_BYTES]) {
        for to in [self.memory, self.shadow] {
            // SAFETY: as many bytes as were mapped.
            unsafe { to.copy_from_nonoverlapping(NonNull::from(data).cast(), MEMORY_BYTES) };
        }
    }

    /// The memory as the processor left it, and as the crate did.
    pub fn memories(&self) -> [&[u8]; 2] {
        [self.memory, self.shadow].map(|from| {
            // SAFETY: as above; nobody writes while self is borrowed.
            unsafe { std::slice::from_raw_parts(from.as_ptr(), MEMORY_BYTES) }
        })
    }

    /// Executes `code` from the given state and leaves the state behind it there.
    pub fn execute(&mut self, code: &[u8], registers: &mut Registers, area: &mut Area) -> Ended {
        assert!(code.len() < RETURN);
        let mut text = [0x90; RETURN + 1];
        text[..code.len()].copy_from_slice(code);
        text[code.len()] = 0xc3;
        text[RETURN] = 0xc3;
        // SAFETY: the page is longer than that, and nobody executes it now.
        unsafe {
            self.code
                .copy_from_nonoverlapping(NonNull::from(&text).cast(), text.len());
        }
        let mut frame = Frame {
            general: registers.general,
            rflags: registers.rflags | 0x200,
            code: self.code_address(),
            area,
            own: &raw mut *self.own,
        };
        RUNNING.set((self.code.as_ptr().addr(), 0));
        // SAFETY: `code` is one instruction that the caller knows to use registers and this memory only, or
        // to fault; all else is put back.
        unsafe { completion_host_execute(&raw mut frame) };
        let (_, signal) = RUNNING.replace((0, 0));
        let stack = registers.general[4];
        registers.general = frame.general;
        registers.general[4] = stack;
        registers.rflags = frame.rflags & !0x200;
        match signal {
            0 => Ended::Completed,
            signal => Ended::Signal(signal),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for (pages, bytes) in [
            (self.code, 4096),
            (self.memory, MEMORY_BYTES),
            (self.shadow, MEMORY_BYTES),
        ] {
            // SAFETY: mapped with this length, and not used any more.
            unsafe { libc::munmap(pages.as_ptr().cast(), bytes) };
        }
    }
}

// SAFETY: the shadow lives as long as self, and references to it only while nobody can write.
unsafe impl GuestMemory for Host {
    fn ram(&self, address: u64, length: usize) -> Option<NonNull<u8>> {
        let start = usize::try_from(address.checked_sub(self.memory_address())?).ok()?;
        if start.checked_add(length)? > MEMORY_BYTES {
            return None;
        }
        // SAFETY: within the mapping.
        Some(unsafe { self.shadow.add(start) })
    }
    fn mmio_read(&mut self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&mut self, _: u64, _: &[u8]) {}
}
