//! A machine of nothing but the ioctls that cannot be left out, in the order that costs least: memory
//! first, then the local APICs, then the vCPU. No device, no check, one vCPU.
//!
//! It enters an ELF file by its PVH note, with a start info that has a command line and nothing else.

use std::io;
use std::ptr::NonNull;
use std::slice;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_MAX_CPUID_ENTRIES, kvm_enable_cap, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

/// Where the start info is: a page of its own, the command line in the middle of it.
const START_INFO: usize = 0x6000;
const COMMAND_LINE: usize = START_INFO + 0x100;
/// `hvm_start_info.magic` (Xen, arch-x86/hvm/start_info.h).
const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Type of a program header whose segment is loaded, and of one with notes (ELF-64, 5).
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Type of the note with the 32-bit entry (Xen, elfnote.h, `XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u32 = 18;
/// CR0: protection on, and the bit that is always set.
const CR0_PE_ET: u64 = 0x11;
/// RFLAGS: the bit that is always set.
const RFLAGS_RESERVED: u64 = 2;

/// Guest memory from address 0, unmapped when dropped.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    size: usize,
}

/// A machine that stands at its guest's first instruction.
#[derive(Debug)]
pub struct BareMachine {
    /// Its one vCPU.
    pub vcpu: VcpuFd,
    // Kept open, in the order in which they may be closed.
    _vm: VmFd,
    _kvm: Kvm,
    _memory: Memory,
}

impl BareMachine {
    /// A machine with `memory_bytes` of memory in which the ELF file `guest` is to run.
    ///
    /// # Errors
    ///
    /// What KVM says, or that the file is not such a guest.
    pub fn new(guest: &[u8], command_line: &str, memory_bytes: usize) -> io::Result<Self> {
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        let mut memory = Memory::map(memory_bytes)?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory_bytes as u64,
            userspace_addr: memory.start.as_ptr().addr() as u64,
        };
        // SAFETY: the range is the mapping, which goes after the machine (see the fields' order).
        unsafe { vm.set_user_memory_region(region) }?;
        let mut split = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..kvm_enable_cap::default()
        };
        split.args[0] = 24;
        vm.enable_cap(&split)?;
        let entry = memory
            .load(guest, command_line)
            .ok_or_else(|| io::Error::other("not an ELF file with a PVH note that fits"))?;
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        let mut system = vcpu.get_sregs()?;
        system.cs = flat_segment(8, 0xb);
        let data = flat_segment(16, 0x3);
        (system.ds, system.es, system.ss) = (data, data, data);
        system.cr0 = CR0_PE_ET;
        vcpu.set_sregs(&system)?;
        vcpu.set_regs(&kvm_regs {
            rip: entry,
            rbx: START_INFO as u64,
            rflags: RFLAGS_RESERVED,
            ..kvm_regs::default()
        })?;
        Ok(Self {
            vcpu,
            _vm: vm,
            _kvm: kvm,
            _memory: memory,
        })
    }
}

impl Memory {
    fn map(size: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast())
            .map(|start| Self { start, size })
            .ok_or_else(|| io::Error::other("memory at address 0"))
    }

    /// Puts segments and start info into memory; gives the 32-bit entry.
    fn load(&mut self, guest: &[u8], command_line: &str) -> Option<u64> {
        // SAFETY: the mapping has this size, and no guest runs in it yet.
        let memory = unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.size) };
        let entry = load_elf(guest, memory)?;
        let mut put = |address: usize, bytes: &[u8]| {
            memory
                .get_mut(address..address + bytes.len())
                .map(|place| place.copy_from_slice(bytes))
        };
        put(START_INFO, &START_INFO_MAGIC.to_le_bytes())?;
        put(START_INFO + 4, &1_u32.to_le_bytes())?;
        put(START_INFO + 24, &(COMMAND_LINE as u64).to_le_bytes())?;
        put(COMMAND_LINE, command_line.as_bytes())?;
        Some(entry)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, which nobody uses any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// Loads all segments of an ELF-64 file to their physical addresses, and finds the PVH entry.
fn load_elf(file: &[u8], memory: &mut [u8]) -> Option<u64> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = read_size(file, 32)?;
    let (entry_bytes, count) = (read_u16(file, 54)?, read_u16(file, 56)?);
    let mut entry = None;
    for index in 0..usize::from(count) {
        let header = file.get(table + index * usize::from(entry_bytes)..)?;
        let (offset, address) = (read_size(header, 8)?, read_size(header, 24)?);
        let length = read_size(header, 32)?;
        let content = file.get(offset..offset.checked_add(length)?)?;
        match read_u32(header, 0)? {
            PT_LOAD => memory
                .get_mut(address..address.checked_add(length)?)?
                .copy_from_slice(content),
            // Name and description follow the three words of the header, four-byte aligned.
            PT_NOTE if read_u32(content, 8)? == PHYS32_ENTRY => {
                let name_bytes = usize::try_from(read_u32(content, 0)?).ok()?;
                entry = Some(u64::from(read_u32(
                    content,
                    12 + name_bytes.next_multiple_of(4),
                )?));
            }
            _ => {}
        }
    }
    entry
}

fn read_u16(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

fn read_size(bytes: &[u8], offset: usize) -> Option<usize> {
    let value = bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)?;
    usize::try_from(value).ok()
}

/// A flat 32-bit segment of the kind `kind` (Intel SDM volume 3, 3.4.5.1).
fn flat_segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    }
}
