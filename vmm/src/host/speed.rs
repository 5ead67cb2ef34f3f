//! How fast this host's KVM runs a guest's kernel, and what an exit costs: a tiny guest counts in ring 0, in
//! 32-bit protected mode without paging, and halts; then it writes to a port as often.
//!
//! A hardware KVM does more than 100 million instructions a second even when it is nested; one that
//! emulates ring 0 does a few million.

use std::time::{Duration, Instant};

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use serde::Serialize;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::report::ProbeError;

/// `dec ecx; jnz -3; hlt`, then `out 0x80, al; dec ecx; jnz -5; hlt`
const GUEST: [u8; 10] = [0x49, 0x75, 0xfd, 0xf4, 0xe6, 0x80, 0x49, 0x75, 0xfb, 0xf4];
/// Where the second part begins.
const EXITS: u64 = 4;
/// Exits of a round, and rounds, of which the fastest counts.
const EXITS_A_ROUND: u32 = 50;
const EXIT_ROUNDS: usize = 5;
/// Two instructions for each count of the loop.
const INSTRUCTIONS_PER_COUNT: u64 = 2;
/// Counts of the first round: a millisecond at the speed of an emulated ring 0.
const FIRST_COUNTS: u32 = 1000;
/// Most counts of a round: bounds what one entry can take at the speed that the round before had.
const MOST_COUNTS: u32 = 20_000_000;
/// A round that takes this long measures the speed well.
const ROUND: Duration = Duration::from_millis(5);
/// No round is started after this.
const PATIENCE: Duration = Duration::from_millis(40);
/// Below this, ring 0 is emulated.
const EMULATED_BELOW: u64 = 30_000_000;

const PAGE_BYTES: usize = 4096;
const CR0_PROTECTED_MODE: u64 = 1;

/// A measured speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ring0Speed {
    /// Instructions that a guest's kernel runs in a second.
    pub instructions_per_second: u64,
    /// What a write to a port costs, from the guest's kernel to this process and back.
    pub exit_nanoseconds: u64,
}

impl Ring0Speed {
    /// Whether it is so slow that KVM must be emulating ring 0 in software.
    pub const fn is_emulated(self) -> bool {
        self.instructions_per_second < EMULATED_BELOW
    }
}

/// Runs the guest for some 10 ms, 50 ms at most on any host that runs a million instructions a second.
pub(super) fn measure(kvm: &Kvm) -> Result<Ring0Speed, ProbeError> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), PAGE_BYTES)])
        .map_err(|_| ProbeError::Memory)?;
    memory
        .write_slice(&GUEST, GuestAddress(0))
        .map_err(|_| ProbeError::Memory)?;
    let host_address = memory
        .get_host_address(GuestAddress(0))
        .map_err(|_| ProbeError::Memory)?;
    let machine = kvm.create_vm()?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: PAGE_BYTES as u64,
        userspace_addr: host_address.addr() as u64,
    };
    // SAFETY: the region is one page of `memory`, which lives until after the machine and its vCPU.
    unsafe { machine.set_user_memory_region(region) }?;
    let mut vcpu = machine.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    enter_protected_mode(&mut special);
    vcpu.set_sregs(&special)?;

    let end = Instant::now() + PATIENCE;
    let mut counts = FIRST_COUNTS;
    loop {
        let elapsed = run(&mut vcpu, 0, counts)?;
        if elapsed >= ROUND || counts == MOST_COUNTS || Instant::now() >= end {
            return Ok(Ring0Speed {
                instructions_per_second: speed(counts, elapsed),
                exit_nanoseconds: exit_nanoseconds(&mut vcpu)?,
            });
        }
        // Twice what the round should need, so that the fixed cost of an entry matters less.
        let factor = 2 * ROUND.as_nanos() / elapsed.as_nanos().max(1);
        let factor = u32::try_from(factor).unwrap_or(u32::MAX).clamp(2, 100);
        counts = counts.saturating_mul(factor).min(MOST_COUNTS);
    }
}

/// Instructions a second.
fn speed(counts: u32, elapsed: Duration) -> u64 {
    let instructions = u128::from(counts) * u128::from(INSTRUCTIONS_PER_COUNT);
    let per_second = instructions * 1_000_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(per_second).unwrap_or(u64::MAX)
}

/// What an exit costs when nothing else wants the processor.
fn exit_nanoseconds(vcpu: &mut VcpuFd) -> Result<u64, ProbeError> {
    let mut fastest = Duration::MAX;
    for _ in 0..EXIT_ROUNDS {
        fastest = fastest.min(run(vcpu, EXITS, EXITS_A_ROUND)?);
    }
    let nanoseconds = fastest.as_nanos() / u128::from(EXITS_A_ROUND);
    Ok(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// One round: from `rip` on, counts down from `counts` and halts.
fn run(vcpu: &mut VcpuFd, rip: u64, counts: u32) -> Result<Duration, ProbeError> {
    vcpu.set_regs(&kvm_regs {
        rip,
        rcx: counts.into(),
        rflags: 2,
        ..kvm_regs::default()
    })?;
    let begin = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::Hlt) => return Ok(begin.elapsed()),
            Ok(VcpuExit::IoOut(..)) => {}
            Ok(exit) => return Err(ProbeError::Exit(format!("{exit:?}"))),
            Err(error) if error.errno() == libc::EINTR || error.errno() == libc::EAGAIN => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Flat segments of 4 GiB (Intel SDM volume 3, 3.4.5.1), no paging.
fn enter_protected_mode(special: &mut kvm_sregs) {
    let segment = |type_, selector| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..kvm_segment::default()
    };
    let data = segment(3, 0x10);
    special.cs = segment(11, 8);
    special.ds = data;
    special.es = data;
    special.fs = data;
    special.gs = data;
    special.ss = data;
    special.cr0 |= CR0_PROTECTED_MODE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_instructions_over_time() {
        assert_eq!(speed(1_000_000, Duration::from_millis(1)), 2_000_000_000);
        assert_eq!(speed(u32::MAX, Duration::ZERO), 8_589_934_590_000_000_000);
        for (instructions_per_second, expected) in [(2_000_000_000, false), (2_000_000, true)] {
            let measured = Ring0Speed {
                instructions_per_second,
                exit_nanoseconds: 1000,
            };
            assert_eq!(measured.is_emulated(), expected);
        }
    }

    #[test]
    fn a_real_guest_counts() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("no /dev/kvm on this host: nothing measured");
            return;
        };
        let begin = Instant::now();
        let measured = measure(&kvm).unwrap();
        assert!(measured.instructions_per_second > 10_000, "{measured:?}");
        assert!(measured.exit_nanoseconds > 100, "{measured:?}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
