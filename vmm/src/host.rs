//! What this host offers to virtual machines: `cuddy check`, and the check at a machine's start.
//!
//! [`report()`] looks at everything and ends with remedies; it opens /dev/kvm and runs a tiny guest for a
//! few milliseconds. [`capabilities::check`] is the part that each start of a machine repeats.

pub mod capabilities;
mod huge_pages;
mod kvm_device;
mod processor;
mod report;
pub(crate) mod software;
mod speed;
mod tun;

pub use huge_pages::HugePagePool;
pub use kvm_device::KvmAccess;
pub use processor::Virtualization;
pub use report::{Finding, Level, Report, report};
pub use speed::Ring0Speed;
