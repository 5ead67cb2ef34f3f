//! The lab: stock kernels under `cuddy`, on any host.
//!
//! A case boots a stock Debian kernel and so needs a KVM that runs kernels natively. A host without one
//! gets it in the lab: QEMU's software CPU implements AMD SVM, and a Linux in it ("L1") has a hardware
//! KVM. [`runner`] is a Cargo runner that takes a test program there and brings its exit status back;
//! the same program runs straight on a host that has such a KVM.
//!
//! Everything comes from Debian's packages through Debian's own clients and is kept in `target/lab`
//! ([`Cache`]); nothing is installed. Cases find their files with [`Assets`] and start machines with
//! [`Machine`].
//!
//! | variable | meaning |
//! |---|---|
//! | `CUDDY_LAB` | `host` or `lab`: where cases run, instead of what is found out |
//! | `CUDDY_LAB_CACHE` | folder of the cache |
//! | `CUDDY_BIN` | the program `cuddy` under test |
//! | `CUDDY_LAB_VMLINUZ`, … | the fields of [`Assets`], set by the runner |

mod assets;
mod busybox;
mod cache;
mod console;
mod debian;
mod debian_disk;
pub mod demo;
mod error;
mod guest;
mod guest_kernel;
mod host;
mod initramfs;
mod kernel;
mod l1;
mod machine;
mod modules;
mod process;
mod program_files;
mod qemu;
mod root_disk;
pub mod runner;
mod schedule;
mod supervisor;
mod tiny_guest;
mod tools_disk;

pub use assets::{Assets, cuddy};
pub use busybox::busybox;
pub use cache::{Cache, CacheLock};
pub use console::{Console, ConsoleError};
pub use error::{LabError, Result};
pub use guest::initrd;
pub use guest_kernel::GuestKernel;
pub use host::Place;
pub use initramfs::Initramfs;
pub use kernel::Kernel;
pub use l1::{Connection, Job, Lab, prefetch};
pub use machine::{Machine, MachineOptions};
pub use modules::{Module, Modules};
pub use process::Program;
pub use qemu::Qemu;
pub use root_disk::root_disk;
pub use supervisor::run as run_in_lab;
pub use tiny_guest::tiny_initrd;
pub use tools_disk::tools_disk;
