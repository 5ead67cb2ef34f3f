//! The serial port, both ways.

use std::io::Write;
use std::time::Duration;

use cuddy_tests::MachineBuilder;

#[test]
fn output_arrives_whole_and_in_order() {
    let finished = MachineBuilder::suite("serial-output")
        .option("lines=500")
        .pass();
    let lines: Vec<String> = finished
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("line "))
        .collect();
    assert_eq!(lines.len(), 500);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(*line, format!("line {number:06} {}", "=".repeat(52)));
    }
}

#[test]
fn string_instructions_print() {
    let finished = MachineBuilder::suite("serial-string").pass();
    for line in 0..8 {
        let text = format!("string {line} abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
        assert!(finished.has_line(&text), "{finished}");
    }
}

#[test]
fn registers_are_those_of_a_16550a() {
    MachineBuilder::suite("serial-registers,serial-loopback").pass();
}

#[test]
fn emptied_transmitter_interrupts() {
    for irqchip in ["split", "kernel"] {
        for via in ["via=ioapic", "via=pic"] {
            MachineBuilder::suite("serial-transmit-interrupt")
                .option(via)
                .argument("--irqchip", irqchip)
                .pass();
        }
    }
}

/// Has the guest echo `length` bytes that are sent at once, far more than its FIFO holds.
fn echo(irqchip: &str, test: &str, options: &str, length: usize) {
    let text: Vec<u8> = (b'a'..=b'z').cycle().take(length).collect();
    let mut machine = MachineBuilder::suite(test)
        .option(&format!("bytes={length} {options}"))
        .argument("--irqchip", irqchip)
        .start();
    machine.expect("READY\n");
    let mut input = machine.take_input();
    let sent = text.clone();
    let sender = std::thread::spawn(move || input.write_all(&sent));
    let received = machine.take(length);
    let wrong = received
        .iter()
        .zip(&text)
        .position(|(one, other)| one != other);
    assert_eq!(wrong, None, "offset of the first wrong byte");
    sender
        .join()
        .expect("no panic")
        .expect("the machine takes input");
    machine.expect(&format!("PASS {test}"));
    let finished = machine.finish();
    assert_eq!(finished.code(), Some(0), "{finished}");
}

#[test]
fn echo_by_interrupt_through_our_ioapic() {
    echo("split", "serial-echo", "via=ioapic", 4096);
}

#[test]
fn echo_by_interrupt_through_our_pic() {
    echo("split", "serial-echo", "via=pic", 4096);
}

#[test]
fn echo_by_interrupt_through_the_kernels_ioapic() {
    echo("kernel", "serial-echo", "via=ioapic", 4096);
}

#[test]
fn echo_by_interrupt_through_the_kernels_pic() {
    echo("kernel", "serial-echo", "via=pic", 4096);
}

#[test]
fn echo_by_polling() {
    echo("split", "serial-echo-polled", "", 2048);
}

#[test]
fn input_that_nobody_reads_waits_outside() {
    // The guest is busy elsewhere, and then reads: nothing is lost, however long it took. It empties the
    // FIFO once, when it starts, which its first output comes after.
    let length = 6000;
    let text: Vec<u8> = (b'0'..=b'9').cycle().take(length).collect();
    let mut machine = MachineBuilder::suite("serial-string,pit,serial-echo-polled")
        .option(&format!("bytes={length}"))
        .start();
    machine.expect("string 7");
    machine.send(&text);
    machine.expect("READY\n");
    assert_eq!(machine.take(length), text);
    machine.expect("PASS serial-echo-polled");
    assert_eq!(machine.finish().code(), Some(0));
}

#[test]
fn closed_input_is_no_reason_to_stop() {
    MachineBuilder::suite("serial-output,rtc")
        .option("lines=10")
        .without_input()
        .pass();
    let mut machine = MachineBuilder::suite("nothing").option("end=halt").start();
    machine.expect("DONE");
    drop(machine.take_input());
    assert!(machine.runs_for(Duration::from_millis(300)));
}
