//! Sockets, cores and threads, and the leaves that tell of them: 1, 4, 0xb, 0x1f, 0x8000_0008, 0x8000_001d,
//! 0x8000_001e (Intel SDM volume 3, 9.9; AMD APM volume 3, E.5).
//!
//! An APIC identifier is made of a thread's number in its core, the core's in its socket and the socket's,
//! each in as many bits as it needs. vCPUs are numbered without gaps, and KVM wants a vCPU's number for its
//! APIC identifier: so shapes that would leave gaps are refused.

use super::{Cpuid, Vendor, find};

/// The shape of the machine's processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    sockets: u8,
    cores_per_socket: u8,
    threads_per_core: u8,
}

/// Why a machine cannot have such processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// No vCPU at all, or more than 255: 255 is the broadcast address of the local APICs.
    #[error("a machine has 1 to 255 vCPUs, not {cpus}")]
    Count {
        /// The number of vCPUs that was asked for.
        cpus: u32,
    },
    /// APIC identifiers would have gaps.
    #[error("{name} must be a power of two for APIC identifiers without gaps, and {count} is none")]
    NotPowerOfTwo {
        /// What was counted.
        name: &'static str,
        /// How many.
        count: u8,
    },
}

impl Topology {
    /// One socket with a core of one thread for each vCPU.
    ///
    /// # Errors
    ///
    /// [`TopologyError::Count`] for no vCPU.
    pub const fn single_socket(cpus: u8) -> Result<Self, TopologyError> {
        Self::new(1, cpus, 1)
    }

    /// Any shape whose APIC identifiers have no gaps.
    ///
    /// # Errors
    ///
    /// [`TopologyError`] for no vCPU or more than 255, for a number of threads that is not a power of two,
    /// and for a number of cores that is not one where there is more than one socket.
    pub const fn new(
        sockets: u8,
        cores_per_socket: u8,
        threads_per_core: u8,
    ) -> Result<Self, TopologyError> {
        let cpus = sockets as u32 * cores_per_socket as u32 * threads_per_core as u32;
        if cpus == 0 || cpus > 255 {
            return Err(TopologyError::Count { cpus });
        }
        if !threads_per_core.is_power_of_two() {
            return Err(TopologyError::NotPowerOfTwo {
                name: "threads of a core",
                count: threads_per_core,
            });
        }
        if sockets > 1 && !cores_per_socket.is_power_of_two() {
            return Err(TopologyError::NotPowerOfTwo {
                name: "cores of a socket",
                count: cores_per_socket,
            });
        }
        Ok(Self {
            sockets,
            cores_per_socket,
            threads_per_core,
        })
    }

    /// Number of vCPUs, 1 to 255. Their APIC identifiers are 0 up to this.
    pub const fn cpus(self) -> u8 {
        self.sockets * self.threads_per_socket()
    }

    const fn threads_per_socket(self) -> u8 {
        self.cores_per_socket * self.threads_per_core
    }

    /// Bits of an APIC identifier that number the thread in its core.
    const fn thread_bits(self) -> u32 {
        bits_for(self.threads_per_core)
    }

    /// Bits of an APIC identifier that number the thread and the core in their socket.
    const fn socket_shift(self) -> u32 {
        self.thread_bits() + bits_for(self.cores_per_socket)
    }
}

/// How many bits number `count` things.
const fn bits_for(count: u8) -> u32 {
    (count as u32).next_power_of_two().trailing_zeros()
}

/// Leaves that number the levels of an x2APIC identifier.
const LEAVES_X2APIC: [u32; 2] = [0xb, 0x1f];
/// Level types of those leaves: a thread in its core, a core in its socket.
const LEVEL_THREAD: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// Writes everything that is the same for each vCPU.
pub(super) fn set(cpuid: &mut Cpuid) {
    let topology = cpuid.topology;
    set_leaf_1(cpuid);
    match cpuid.vendor {
        Vendor::Intel => set_caches_intel(cpuid),
        Vendor::Amd => set_amd(cpuid),
    }
    // AMD's own form of leaf 0xb. Linux asks it first, and without it leaf 0xb.
    cpuid.remove_leaf(0x8000_0026);

    let has_1f = find(&cpuid.entries, 0, 0).is_some_and(|entry| entry.eax >= 0x1f);
    let levels = [
        (
            topology.thread_bits(),
            topology.threads_per_core,
            LEVEL_THREAD,
        ),
        (
            topology.socket_shift(),
            topology.threads_per_socket(),
            LEVEL_CORE,
        ),
        (0, 0, 0),
    ];
    for leaf in LEAVES_X2APIC {
        cpuid.remove_leaf(leaf);
        if leaf == 0x1f && !has_1f {
            continue;
        }
        for (index, (shift, count, kind)) in (0..).zip(levels) {
            let entry = cpuid.leaf_mut(leaf, Some(index));
            entry.eax = shift;
            entry.ebx = u32::from(count);
            entry.ecx = kind << 8 | index;
        }
        cpuid.raise_maximum(0, leaf);
    }
}

/// Writes what differs between vCPUs.
pub(super) fn set_apic_id(cpuid: &mut Cpuid, apic_id: u8) {
    let topology = cpuid.topology;
    let id = u32::from(apic_id);
    for entry in &mut cpuid.entries {
        match entry.function {
            1 => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
            function if LEAVES_X2APIC.contains(&function) => entry.edx = id,
            0x8000_001e => {
                let core = (id & ((1 << topology.socket_shift()) - 1)) >> topology.thread_bits();
                let socket = id >> topology.socket_shift();
                entry.eax = id;
                entry.ebx = core | (u32::from(topology.threads_per_core) - 1) << 8;
                // One node in each socket.
                entry.ecx = socket;
            }
            _ => {}
        }
    }
}

fn set_leaf_1(cpuid: &mut Cpuid) {
    const CLFLUSH: u32 = 1 << 19;
    /// More than one logical processor in a socket.
    const HTT: u32 = 1 << 28;
    /// The size of a cache line, in units of eight bytes.
    const CLFLUSH_LINE: u32 = 8;

    let threads = cpuid.topology.threads_per_socket();
    let logical_processors = match cpuid.vendor {
        // Intel counts identifiers, AMD processors.
        Vendor::Intel => (1u32 << cpuid.topology.socket_shift()).min(255),
        Vendor::Amd => u32::from(threads),
    };
    let leaf = cpuid.leaf_mut(1, None);
    let mut line = leaf.ebx >> 8 & 0xff;
    if line == 0 && leaf.edx & CLFLUSH != 0 {
        line = CLFLUSH_LINE;
    }
    leaf.ebx = leaf.ebx & 0xff | line << 8 | logical_processors << 16;
    leaf.edx &= !HTT;
    if threads > 1 {
        leaf.edx |= HTT;
    }
}

/// Whether only the threads of one core share a cache, from its description in leaf 4 or 0x8000_001d: those
/// up to level 2. The ones above belong to the socket.
const fn is_private_to_core(eax: u32) -> bool {
    eax >> 5 & 7 <= 2
}

/// Leaf 4: for each cache how many identifiers share it, and how many cores have identifiers.
fn set_caches_intel(cpuid: &mut Cpuid) {
    let topology = cpuid.topology;
    let cores = (1u32 << bits_for(topology.cores_per_socket)).min(64);
    for entry in &mut cpuid.entries {
        // The list of caches ends with one of type zero.
        if entry.function == 4 && entry.eax & 0x1f != 0 {
            let sharing_bits = if is_private_to_core(entry.eax) {
                topology.thread_bits()
            } else {
                topology.socket_shift()
            };
            let sharing = 1u32 << sharing_bits;
            entry.eax = entry.eax & 0x3fff | (sharing - 1) << 14 | (cores - 1) << 26;
        }
    }
}

fn set_amd(cpuid: &mut Cpuid) {
    /// The count in leaf 1 is one of cores, not of threads of one core.
    const CMP_LEGACY: u32 = 1 << 1;
    /// Leaves 0x8000_001d and 0x8000_001e are there.
    const TOPOLOGY_EXTENSIONS: u32 = 1 << 22;

    let topology = cpuid.topology;
    let threads = u32::from(topology.threads_per_socket());
    let mut extensions = false;
    if let Some(entry) = cpuid.find_mut(0x8000_0001, 0) {
        entry.ecx &= !CMP_LEGACY;
        if threads > 1 {
            entry.ecx |= CMP_LEGACY;
        }
        extensions = entry.ecx & TOPOLOGY_EXTENSIONS != 0;
    }
    if let Some(entry) = cpuid.find_mut(0x8000_0008, 0) {
        entry.ecx = entry.ecx & 0xffff_0000 | topology.socket_shift() << 12 | (threads - 1);
    }
    if extensions {
        for entry in &mut cpuid.entries {
            if entry.function == 0x8000_001d && entry.eax & 0x1f != 0 {
                let sharing = if is_private_to_core(entry.eax) {
                    u32::from(topology.threads_per_core)
                } else {
                    threads
                };
                entry.eax = entry.eax & !(0xfff << 14) | (sharing - 1) << 14;
            }
        }
        // Filled by set_apic_id.
        cpuid.leaf_mut(0x8000_001e, None);
        cpuid.raise_maximum(0x8000_0000, 0x8000_001e);
    } else {
        cpuid.remove_leaf(0x8000_001d);
        cpuid.remove_leaf(0x8000_001e);
    }
}

#[cfg(test)]
mod tests;
