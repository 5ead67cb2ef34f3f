//! Guest memory on the host: mapped as the configuration asks, laid out as `arch` says, handed to KVM
//! as slots.
//!
//! The mappings live as long as the last holder of [`GuestMemory`]; a [`Machine`](crate::machine) keeps
//! one for as long as its KVM file descriptors are open, so a slot never outlives its mapping.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use arch::memory_map::MemoryMap;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use crate::config::{HugePages, MemoryConfig};

/// Memory that the guest and this process share.
pub type GuestMemory = Arc<GuestMemoryMmap<()>>;

/// Why a guest has no memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The size does not fit this host's addresses.
    #[error("{0} bytes are more than this host can address")]
    TooLarge(u64),
    /// No memory file.
    #[error("cannot make a memory file of {size_bytes} bytes: {source}")]
    MemoryFile {
        /// Its size.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// No mapping.
    #[error("cannot map {size_bytes} bytes: {reason}{}", hint(*.hugepages))]
    Map {
        /// The size of the mapping.
        size_bytes: u64,
        /// The pages that were asked for.
        hugepages: HugePages,
        /// What the host said.
        reason: String,
    },
    /// The host has less free memory than was to be allocated up front.
    #[error("cannot allocate all {size_bytes} bytes up front: {source}{}", hint(*.hugepages))]
    Prefault {
        /// The size of the mapping.
        size_bytes: u64,
        /// The pages that were asked for.
        hugepages: HugePages,
        /// What the host said.
        source: io::Error,
    },
    /// KVM refused a slot.
    #[error("KVM refuses {size_bytes} bytes of memory at {guest_address:#x}: {source}")]
    Slot {
        /// Where the slot was to be.
        guest_address: u64,
        /// Its size.
        size_bytes: u64,
        /// What KVM said.
        source: kvm_ioctls::Error,
    },
}

fn hint(hugepages: HugePages) -> &'static str {
    match hugepages {
        HugePages::Off | HugePages::Transparent => "",
        HugePages::Size2M => {
            "; reserve huge pages in /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
        }
        HugePages::Size1G => {
            "; reserve huge pages in /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"
        }
    }
}

/// Maps guest memory at the addresses of `map`, as `config` asks.
///
/// # Errors
///
/// [`MemoryError`] when the host has not enough of what was asked for.
pub fn map(config: &MemoryConfig, map: &MemoryMap) -> Result<GuestMemory, MemoryError> {
    let size_bytes = config.size.0;
    let file = match config.shared {
        true => Some(Arc::new(memory_file(config)?)),
        false => None,
    };
    let mut regions = Vec::with_capacity(2);
    let mut file_offset = 0;
    for range in map.ram() {
        let length = range.end - range.start;
        let offset = file
            .as_ref()
            .map(|file| FileOffset::from_arc(Arc::clone(file), file_offset));
        regions.push(map_region(config, range.start, length, offset)?);
        file_offset += length;
    }
    GuestMemoryMmap::from_regions(regions)
        .map(Arc::new)
        .map_err(|_| MemoryError::TooLarge(size_bytes))
}

/// Gives `memory` to the machine, a slot for each region.
///
/// # Errors
///
/// [`MemoryError::Slot`] when KVM refuses one.
pub fn register(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<(), MemoryError> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr().addr() as u64,
        };
        // SAFETY: the region is a mapping of that size, and whoever owns the VM keeps the memory mapped
        // until the VM is gone (see the head of this file).
        unsafe { vm.set_user_memory_region(slot) }.map_err(|source| MemoryError::Slot {
            guest_address: slot.guest_phys_addr,
            size_bytes: slot.memory_size,
            source,
        })?;
    }
    Ok(())
}

fn memory_file(config: &MemoryConfig) -> Result<File, MemoryError> {
    let size_bytes = config.size.0;
    let error = |source| MemoryError::MemoryFile { size_bytes, source };
    let huge = match config.hugepages {
        HugePages::Off | HugePages::Transparent => 0,
        HugePages::Size2M => libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
        HugePages::Size1G => libc::MFD_HUGETLB | libc::MFD_HUGE_1GB,
    };
    // SAFETY: the name is a C string, and the call touches no other memory.
    let fd = unsafe { libc::memfd_create(c"guest-memory".as_ptr(), libc::MFD_CLOEXEC | huge) };
    if fd < 0 {
        return Err(error(io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was made above and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size_bytes).map_err(error)?;
    Ok(file)
}

fn map_region(
    config: &MemoryConfig,
    start: u64,
    length: u64,
    file_offset: Option<FileOffset>,
) -> Result<GuestRegionMmap<()>, MemoryError> {
    let too_large = || MemoryError::TooLarge(config.size.0);
    let size = usize::try_from(length).map_err(|_| too_large())?;
    let mut flags = match file_offset {
        Some(_) => libc::MAP_SHARED,
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    };
    let huge = match config.hugepages {
        // Address space is not memory: a guest may be promised more than it will use. Reserved pages
        // are promised one by one.
        HugePages::Off | HugePages::Transparent => libc::MAP_NORESERVE,
        HugePages::Size2M => libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
        HugePages::Size1G => libc::MAP_HUGETLB | libc::MAP_HUGE_1GB,
    };
    if file_offset.is_none() || huge == libc::MAP_NORESERVE {
        flags |= huge;
    }
    let mut builder = MmapRegionBuilder::<()>::new(size)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(flags)
        .with_hugetlbfs(huge != libc::MAP_NORESERVE);
    if let Some(file_offset) = file_offset {
        builder = builder.with_file_offset(file_offset);
    }
    let region = builder.build().map_err(|error| MemoryError::Map {
        size_bytes: length,
        hugepages: config.hugepages,
        reason: error.to_string(),
    })?;
    let region = GuestRegionMmap::new(region, GuestAddress(start)).ok_or_else(too_large)?;
    if config.hugepages == HugePages::Transparent {
        // A host without transparent huge pages still runs the guest.
        if let Err(error) = advise(&region, libc::MADV_HUGEPAGE) {
            tracing::warn!("the host gives no transparent huge pages: {error}");
        }
    }
    if config.prefault {
        advise(&region, libc::MADV_POPULATE_WRITE).map_err(|source| MemoryError::Prefault {
            size_bytes: length,
            hugepages: config.hugepages,
            source,
        })?;
    }
    Ok(region)
}

fn advise(region: &GuestRegionMmap<()>, advice: i32) -> io::Result<()> {
    // SAFETY: the range is exactly the region's own mapping, which is nobody else's yet; neither of the
    // two pieces of advice that are given above changes what it holds.
    let result = unsafe { libc::madvise(region.as_ptr().cast(), region.size(), advice) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests;
