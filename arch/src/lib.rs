//! What an x86-64 machine looks like, as pure data: memory map, port map, interrupt map, CPUID, model-
//! specific registers, segments and page tables. Nothing here opens a file or makes an ioctl; `boot`
//! writes these bytes into guest memory and `vmm` hands these values to KVM.
#![forbid(unsafe_code)]

pub mod cpu_features;
pub mod cpuid;
pub mod entry;
pub mod layout;
pub mod local_apic;
pub mod memory_map;
pub mod msr;
pub mod paging;
pub mod registers;
pub mod segments;
