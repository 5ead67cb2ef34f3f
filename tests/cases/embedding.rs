//! The library in a program of somebody else: the example in its documentation is what runs here.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use cuddy_tests::guests;
use vmm::config::{MachineConfig, SerialConfig};
use vmm::console::Console;
use vmm::{ErrorKind, ExitReason, Outcome, Session, StopReason};

#[path = "../../vmm/examples/boot.rs"]
#[expect(dead_code, reason = "the example's own main is not called")]
mod example;

/// An output that a test can look at.
#[derive(Debug, Default, Clone)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn suite() -> String {
    guests::path(guests::SUITE).display().to_string()
}

#[test]
fn the_example_boots_a_machine() {
    let output = Captured::default();
    let cmdline = Some("test=acpi-tables,smp cpus=2".to_owned());
    let outcome = example::boot(&suite(), cmdline, Box::new(output.clone())).unwrap();
    assert_eq!(outcome, Outcome::PowerOff);
    let text = output.text();
    assert!(text.contains("PASS acpi-tables"), "{text}");
    assert!(text.contains("PASS smp"), "{text}");
}

#[test]
fn the_example_tells_what_is_wrong() {
    let error = example::boot("/nonexistent", None, Box::new(io::sink())).unwrap_err();
    assert!(error.to_string().contains("/nonexistent"), "{error}");
}

/// A machine whose guest stands still, on a thread of its own.
fn halted() -> (vmm::Control, std::thread::JoinHandle<Outcome>) {
    let config = MachineConfig {
        kernel: Some(suite().into()),
        cmdline: Some("test=nothing end=halt".to_owned()),
        ..MachineConfig::default()
    };
    let console = Console::open(&SerialConfig::None).unwrap();
    let session = Session::open(config, console).unwrap();
    let control = session.control();
    let thread = std::thread::spawn(move || session.run().unwrap());
    (control, thread)
}

#[test]
fn a_machine_is_steered_from_another_thread() {
    let (control, machine) = halted();
    for _ in 0..20 {
        control.pause();
        control.resume();
    }
    control.reset();
    control.stop(StopReason::User);
    assert_eq!(machine.join().unwrap(), Outcome::Stopped(StopReason::User));
}

#[test]
fn two_machines_run_in_one_process() {
    let (first, second) = (halted(), halted());
    for (control, machine) in [first, second] {
        control.stop(StopReason::Signal(15));
        let outcome = machine.join().unwrap();
        assert_eq!(outcome, Outcome::Stopped(StopReason::Signal(15)));
    }
}

#[test]
fn a_program_learns_what_was_counted_and_where_a_guest_crashed() {
    let config = MachineConfig {
        kernel: Some(suite().into()),
        cmdline: Some("test=ring0-unknown".to_owned()),
        cpus: 2,
        ..MachineConfig::default()
    };
    let console = Console::open(&SerialConfig::None).unwrap();
    let session = Session::open(config, console).unwrap();
    let control = session.control();
    let Outcome::Crash(crash) = session.run().unwrap() else {
        panic!("nobody loads a decimal number from a device");
    };
    assert!(crash.reason.contains("fbld"), "{crash}");
    let vcpu = crash.vcpu.as_deref().expect("registers");
    assert_eq!((vcpu.number, vcpu.cs), (0, 8));
    assert!(
        crash.reason.contains(&format!("{:#x}", vcpu.rip)),
        "{crash}"
    );
    let metrics = control.metrics();
    assert_eq!(metrics.vcpus.len(), 2);
    let failures = metrics.vcpus[0]
        .exits
        .iter()
        .find(|(reason, _)| *reason == ExitReason::InternalError);
    assert!(
        failures.is_some_and(|(_, count)| *count >= 1),
        "{metrics:?}"
    );
}

#[test]
fn a_configuration_is_refused_with_all_that_is_wrong() {
    let config = MachineConfig {
        cpus: 0,
        ..MachineConfig::default()
    };
    let console = Console::open(&SerialConfig::None).unwrap();
    let error = Session::open(config, console).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(error.to_string().lines().count(), 2, "{error}");
}
