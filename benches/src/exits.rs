//! Accesses to ports and registers: `cuddy`'s run loop, bus and device against a loop of KVM_RUN that
//! does nothing else. The guest counts its own cycles, and both machines run in this process, in turn.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::VcpuExit;
use vmm::config::{ByteSize, MachineConfig, MemoryConfig};
use vmm::console::Console;
use vmm::{Outcome, Session};

use crate::Failure;
use crate::bare_machine::BareMachine;
use crate::contenders::MEMORY_MIB;
use crate::report::Comparison;
use crate::statistics::Samples;

/// Target: time of an exit to that of the bare loop.
const TO_BARE: f64 = 1.05;
/// Exits of one round: few, so that a round is over before the rest of the host changes much.
pub(crate) const COUNT: u64 = 500;
/// Ports of the serial port, its line status register, and what that says of an empty transmitter.
const COM1: u16 = 0x3f8;
const COM1_LAST: u16 = COM1 + 7;
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 0x60;
/// The keyboard controller's command port: any write ends the bare machine.
const I8042_COMMAND: u16 = 0x64;

const KINDS: [(&str, &str); 4] = [
    ("read of port 0x80", "test=pio-exits port=0x80"),
    ("write to port 0x80", "test=pio-exits port=0x80 write=1"),
    (
        "read of a virtio-pci register",
        // The entropy device, where it is at first.
        "test=mmio-exits pci=1 address=0xc0000000",
    ),
    (
        "write to an address without a device",
        "test=mmio-exits address=0xd0000000 write=1",
    ),
];

pub(crate) fn measure(suite: &Path, rounds: usize) -> Result<(), Failure> {
    let guest = fs::read(suite)?;
    for (kind, words) in KINDS {
        let command_line = format!("{words} count={COUNT} end=i8042");
        let (mut bare, mut cuddy) = (Samples::default(), Samples::default());
        for round in 0..rounds {
            let mut measure_bare = || {
                bare.push(cycles_per_exit(&run_bare(&guest, &command_line)?)?);
                Ok::<_, Failure>(())
            };
            // Both are first in turn: what changes steadily cancels out.
            if round % 2 == 0 {
                measure_bare()?;
            }
            cuddy.push(cycles_per_exit(&run_cuddy(suite, &command_line)?)?);
            if round % 2 == 1 {
                measure_bare()?;
            }
        }
        let comparison = Comparison {
            title: kind,
            unit: "TSC cycles an exit",
            rows: vec![("bare loop", bare), ("cuddy", cuddy)],
        };
        comparison.print();
        comparison.judge_ratio("cuddy", "bare loop", TO_BARE);
    }
    Ok(())
}

/// From the guest's `… cycles for … exits`.
pub(crate) fn cycles_per_exit(output: &str) -> Result<f64, Failure> {
    let cycles = output
        .lines()
        .find_map(|line| {
            let (before, _) = line.split_once(" cycles for ")?;
            // The bare machine takes the serial port's divisor for text.
            let digits = before.trim_start_matches(|c: char| !c.is_ascii_digit());
            digits.parse::<f64>().ok()
        })
        .ok_or_else(|| format!("the guest gave no number: {output:?}"))?;
    Ok(cycles / COUNT as f64)
}

pub(crate) fn run_bare(guest: &[u8], command_line: &str) -> Result<String, Failure> {
    let memory_bytes = usize::try_from(MEMORY_MIB << 20)?;
    let mut machine = BareMachine::new(guest, command_line, memory_bytes)?;
    let mut output = Vec::new();
    loop {
        match machine.vcpu.run() {
            Ok(VcpuExit::IoOut(COM1, bytes)) => output.extend_from_slice(bytes),
            Ok(VcpuExit::IoOut(I8042_COMMAND, _)) => break,
            Ok(VcpuExit::IoIn(LINE_STATUS, data)) => data.fill(TRANSMITTER_EMPTY),
            Ok(VcpuExit::IoIn(COM1..=COM1_LAST, data)) => data.fill(0),
            Ok(VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data)) => data.fill(0xff),
            Ok(VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..)) => {}
            Ok(exit) => return Err(format!("unexpected exit {exit:?}").into()),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

pub(crate) fn run_cuddy(suite: &Path, command_line: &str) -> Result<String, Failure> {
    let output = SharedBuffer::default();
    let config = MachineConfig {
        kernel: Some(suite.to_owned()),
        cmdline: Some(command_line.to_owned()),
        memory: MemoryConfig::with_size(ByteSize(MEMORY_MIB << 20)),
        ..MachineConfig::default()
    };
    let console = Console::from_parts(None, Box::new(output.clone()))?;
    match Session::open(config, console)?.run()? {
        Outcome::Reset => Ok(output.text()),
        other => Err(format!("{other:?} after {:?}", output.text()).into()),
    }
}

/// What the guest's serial port writes to.
#[derive(Debug, Clone, Default)]
struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

impl SharedBuffer {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for SharedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
