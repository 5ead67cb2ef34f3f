//! How a guest crashed: a line that says what, and the registers of the vCPU where it happened.

use std::fmt;

/// What is known of a crash. Displayed as the one line; [`VcpuState`] is displayed as the block below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// What happened, where and at which instruction, in a line.
    pub reason: String,
    /// The vCPU that could not go on; none when the guest itself said that it crashed.
    pub vcpu: Option<Box<VcpuState>>,
}

impl Crash {
    /// A crash that is not that of one vCPU.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            vcpu: None,
        }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

/// The registers of a vCPU that stands (Intel SDM volume 1, 3.4; volume 3, 2.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VcpuState {
    /// Which vCPU.
    pub number: u16,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0.
    pub cr0: u64,
    /// CR2: the linear address of the last page fault.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
    /// Selector of CS.
    pub cs: u16,
    /// Base of CS.
    pub cs_base: u64,
    /// Selector of SS.
    pub ss: u16,
    /// Base of FS.
    pub fs_base: u64,
    /// Base of GS.
    pub gs_base: u64,
}

impl VcpuState {
    /// Whether this is what a processor has after a reset (Intel SDM volume 3, table 10-1): on AMD, KVM
    /// resets a vCPU that shut down, and nothing of its guest is left.
    pub const fn is_reset(&self) -> bool {
        self.rip == 0xfff0 && self.cs == 0xf000 && self.cr0 & 1 == 0
    }

    /// The linear address of the next instruction.
    pub const fn instruction_address(&self) -> u64 {
        self.cs_base.wrapping_add(self.rip)
    }
}

/// Lines of at most four registers, each with its two spaces of indentation, without a newline at the end.
impl fmt::Display for VcpuState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, general @ ..] = &self.general;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = general;
        let lines: [&[(&str, &u64)]; 7] = [
            &[("rip", &self.rip), ("rsp", rsp), ("rflags", &self.rflags)],
            &[("rax", rax), ("rbx", rbx), ("rcx", rcx), ("rdx", rdx)],
            &[("rsi", rsi), ("rdi", rdi), ("rbp", rbp), ("r8", r8)],
            &[("r9", r9), ("r10", r10), ("r11", r11), ("r12", r12)],
            &[("r13", r13), ("r14", r14), ("r15", r15)],
            &[
                ("cr0", &self.cr0),
                ("cr2", &self.cr2),
                ("cr3", &self.cr3),
                ("cr4", &self.cr4),
            ],
            &[
                ("efer", &self.efer),
                ("fs base", &self.fs_base),
                ("gs base", &self.gs_base),
            ],
        ];
        for line in lines {
            for (name, value) in line {
                write!(formatter, "  {name:>3} {value:016x}")?;
            }
            writeln!(formatter)?;
        }
        write!(formatter, "   cs {:04x}  ss {:04x}", self.cs, self.ss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_a_short_block() {
        let state = VcpuState {
            general: std::array::from_fn(|number| 0xa0 + number as u64),
            rip: u64::MAX,
            cs: 0x10,
            ..VcpuState::default()
        };
        let text = state.to_string();
        assert_eq!(text.lines().count(), 8);
        assert!(text.lines().all(|line| line.len() <= 88), "{text}");
        assert!(text.starts_with("  rip ffffffffffffffff  rsp 00000000000000a4  rflags 0"));
        for expected in [
            "rcx 00000000000000a1",
            "rdi 00000000000000a7",
            "   r8 00000000000000a8",
            "r15 00000000000000af",
            "cs 0010  ss 0000",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_reset_is_told_from_a_guest() {
        let mut state = VcpuState {
            rip: 0xfff0,
            cs: 0xf000,
            cr0: 0x6000_0010,
            ..VcpuState::default()
        };
        assert!(state.is_reset());
        state.cr0 |= 1;
        assert!(!state.is_reset());
    }
}
