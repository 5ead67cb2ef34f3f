//! What a machine counts: the exits of its vCPUs by reason, the instructions that were completed outside
//! KVM, by mnemonic, and what passed through its socket device. Counts go on over restarts of the machine.
//!
//! A vCPU's thread is the only one that adds to its counters, without a lock and without an atomic
//! read-modify-write. Any thread may take a snapshot at any time.

mod prometheus;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use completion::Mnemonic;
use virtio::devices::vsock::{VsockCounters, VsockCounts};

/// Why a vCPU left the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest read a port.
    PortRead,
    /// The guest wrote to a port.
    PortWrite,
    /// The guest read an address that is not RAM.
    MmioRead,
    /// The guest wrote to an address that is not RAM.
    MmioWrite,
    /// The guest ended a level-triggered interrupt of an IOAPIC outside KVM.
    EndOfInterrupt,
    /// The guest can take an interrupt that waits for it.
    InterruptWindow,
    /// The guest halted.
    Halt,
    /// The thread was wanted outside.
    Signal,
    /// KVM met an instruction that it does not emulate, or another error of its own.
    InternalError,
    /// KVM stopped after an instruction, as it was asked to.
    Step,
    /// The guest asked KVM for a reset or a power-off.
    SystemEvent,
    /// The guest's processor shut down: a triple fault.
    Shutdown,
    /// Anything else.
    Other,
}

impl ExitReason {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::PortRead,
        Self::PortWrite,
        Self::MmioRead,
        Self::MmioWrite,
        Self::EndOfInterrupt,
        Self::InterruptWindow,
        Self::Halt,
        Self::Signal,
        Self::InternalError,
        Self::Step,
        Self::SystemEvent,
        Self::Shutdown,
        Self::Other,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortRead => "port_read",
            Self::PortWrite => "port_write",
            Self::MmioRead => "mmio_read",
            Self::MmioWrite => "mmio_write",
            Self::EndOfInterrupt => "end_of_interrupt",
            Self::InterruptWindow => "interrupt_window",
            Self::Halt => "halt",
            Self::Signal => "signal",
            Self::InternalError => "internal_error",
            Self::Step => "step",
            Self::SystemEvent => "system_event",
            Self::Shutdown => "shutdown",
            Self::Other => "other",
        }
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) -> u64 {
        let before = self.get();
        self.0.store(before.wrapping_add(count), Ordering::Relaxed);
        before
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one vCPU, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct VcpuCounters {
    exits: [Counter; ExitReason::ALL.len()],
    /// Instructions that were carried out in runs, ahead of KVM.
    interpreted: Counter,
    /// By number of the mnemonic; 16 KiB that few machines need.
    completions: OnceLock<Box<[Counter]>>,
}

impl VcpuCounters {
    /// Counts an exit. On the vCPU's thread.
    pub(crate) fn count_exit(&self, reason: ExitReason) {
        self.exits[reason as usize].add(1);
    }

    /// Counts instructions that were carried out ahead of KVM. On the vCPU's thread.
    pub(crate) fn count_interpreted(&self, count: u32) {
        self.interpreted.add(count.into());
    }

    /// Counts a completed instruction; says how many there were before. On the vCPU's thread.
    pub(crate) fn count_completion(&self, mnemonic: Mnemonic) -> u64 {
        let counters = self
            .completions
            .get_or_init(|| Mnemonic::values().map(|_| Counter::default()).collect());
        counters[mnemonic as usize].add(1)
    }

    fn snapshot(&self) -> VcpuMetrics {
        let completions = self.completions.get().into_iter().flat_map(|counters| {
            Mnemonic::values()
                .zip(counters)
                .map(|(mnemonic, counter)| (mnemonic, counter.get()))
                .filter(|(_, count)| *count > 0)
        });
        let mut completions: Vec<_> = completions
            .map(|(mnemonic, count)| (format!("{mnemonic:?}").to_lowercase(), count))
            .collect();
        completions.sort();
        VcpuMetrics {
            exits: ExitReason::ALL.map(|reason| (reason, self.exits[reason as usize].get())),
            interpreted: self.interpreted.get(),
            completions,
        }
    }
}

/// The counters of a machine, in all its incarnations.
#[derive(Debug)]
pub struct Counters {
    machine: String,
    vcpus: Vec<Arc<VcpuCounters>>,
    vsock: Option<Arc<VsockCounters>>,
}

impl Counters {
    /// Zeros for the machine named `machine` with `cpus` vCPUs.
    pub(crate) fn new(machine: &str, cpus: u16) -> Self {
        Self {
            machine: machine.to_owned(),
            vcpus: (0..cpus).map(|_| Arc::default()).collect(),
            vsock: None,
        }
    }

    /// With those of its socket device, if it has one.
    pub(crate) fn with_vsock(self, vsock: Option<Arc<VsockCounters>>) -> Self {
        Self { vsock, ..self }
    }

    /// Those of vCPU `number`.
    pub(crate) fn vcpu(&self, number: u16) -> Arc<VcpuCounters> {
        let counters = self.vcpus.get(usize::from(number));
        counters.map(Arc::clone).unwrap_or_default()
    }

    /// What has been counted so far.
    pub(crate) fn snapshot(&self) -> Metrics {
        Metrics {
            machine: self.machine.clone(),
            vcpus: self.vcpus.iter().map(|vcpu| vcpu.snapshot()).collect(),
            vsock: self.vsock.as_ref().map(|vsock| vsock.counts()),
        }
    }
}

/// What a machine has counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The machine's name.
    pub machine: String,
    /// The vCPUs, in the order of their numbers.
    pub vcpus: Vec<VcpuMetrics>,
    /// What passed through the socket device, if there is one.
    pub vsock: Option<VsockCounts>,
}

/// What one vCPU has counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VcpuMetrics {
    /// Returns of KVM_RUN, by reason.
    pub exits: [(ExitReason, u64); ExitReason::ALL.len()],
    /// Instructions that were carried out in runs, ahead of a software KVM.
    pub interpreted: u64,
    /// Instructions that were completed outside KVM, by mnemonic in lower case; those that raised an
    /// exception are among them. Only what came at least once, in the order of the alphabet.
    pub completions: Vec<(String, u64)>,
}

impl Metrics {
    /// The text in which Prometheus and OpenMetrics scrapers take metrics (Prometheus text exposition format,
    /// version 0.0.4).
    pub fn to_prometheus(&self) -> String {
        prometheus::render(self)
    }
}

impl VcpuMetrics {
    /// A line for people: what came most first.
    pub(crate) fn summary(&self) -> String {
        let exits = self.exits.map(|(reason, count)| (reason.name(), count));
        let completions: Vec<_> = self
            .completions
            .iter()
            .map(|(mnemonic, count)| (mnemonic.as_str(), *count))
            .collect();
        let mut text = format!("{} exits", total(&exits));
        append(&mut text, &exits);
        if self.interpreted > 0 {
            let _ = write!(text, ", {} instructions ahead of KVM", self.interpreted);
        }
        if !completions.is_empty() {
            let count = total(&completions);
            // Writing to a string cannot fail.
            let _ = write!(text, ", {count} instructions completed outside KVM");
            append(&mut text, &completions);
        }
        text
    }
}

fn total(counts: &[(&str, u64)]) -> u64 {
    counts.iter().map(|(_, count)| count).sum()
}

/// Appends the counts in brackets, the highest first.
fn append(text: &mut String, counts: &[(&str, u64)]) {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<_> = counts
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !counts.is_empty() {
        let _ = write!(text, " ({})", counts.join(", "));
    }
}

#[cfg(test)]
mod tests;
