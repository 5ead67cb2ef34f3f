use std::sync::Mutex;

use proptest::prelude::*;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::test_line::TestLine;

/// The host's side: takes as many bytes as it has been allowed to.
#[derive(Debug, Clone, Default)]
struct Terminal(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

impl Terminal {
    fn seen(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }

    fn allow(&self, bytes: Option<usize>) {
        self.0.lock().unwrap().1 = bytes;
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock().unwrap();
        let taken = bytes.len().min(inner.1.unwrap_or(usize::MAX));
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        inner.0.extend(&bytes[..taken]);
        inner.1 = inner.1.map(|allowed| allowed - taken);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn port() -> (Serial, Arc<TestLine>, Terminal) {
    let line = Arc::new(TestLine::default());
    let terminal = Terminal::default();
    let serial = Serial::new(line.clone(), Box::new(terminal.clone()));
    (serial, line, terminal)
}

fn read(serial: &mut Serial, register: u16) -> u8 {
    let mut data = [0xff];
    serial.read(register, &mut data);
    data[0]
}

fn write(serial: &mut Serial, register: u16, value: u8) {
    assert_eq!(serial.write(register, &[value]), Effect::None);
}

#[test]
fn is_found_to_be_a_16550a() {
    let (mut serial, line, _) = port();
    write(&mut serial, 1, 0);
    assert_eq!(read(&mut serial, 1), 0);
    write(&mut serial, 1, 0xff);
    assert_eq!(read(&mut serial, 1), 0x0f);
    write(&mut serial, 1, 0);
    // Loopback: OUT2 and RTS come back as DCD and CTS.
    write(&mut serial, 4, 0x1a);
    assert_eq!(read(&mut serial, 6) & 0xf0, 0x90);
    write(&mut serial, 4, 0x0b);
    assert_eq!(read(&mut serial, 6) & 0xf0, 0xb0);
    write(&mut serial, 2, 0);
    assert_eq!(read(&mut serial, 2), 0x01);
    write(&mut serial, 2, 0x01);
    assert_eq!(read(&mut serial, 2), 0xc1);
    write(&mut serial, 2, 0x21);
    assert_eq!(read(&mut serial, 2), 0xc1, "no 64-byte FIFO");
    write(&mut serial, 7, 0xa5);
    assert_eq!(read(&mut serial, 7), 0xa5);
    write(&mut serial, 3, 0x83);
    write(&mut serial, 0, 0x0c);
    write(&mut serial, 1, 0x02);
    assert_eq!([read(&mut serial, 0), read(&mut serial, 1)], [0x0c, 0x02]);
    write(&mut serial, 3, 0x03);
    assert_eq!(read(&mut serial, 1), 0);
    assert!(!line.is_asserted());
}

#[test]
fn output_is_seen_at_once() {
    let (mut serial, _, terminal) = port();
    for byte in b"login: " {
        assert_eq!(read(&mut serial, 5), 0x60);
        write(&mut serial, 0, *byte);
    }
    assert_eq!(terminal.seen(), b"login: ");
}

#[test]
fn the_transmitter_interrupts_when_it_is_empty() {
    let (mut serial, line, terminal) = port();
    write(&mut serial, 1, 2);
    assert!(line.is_asserted(), "enabling reports an empty transmitter");
    assert_eq!(read(&mut serial, 2), 0x02);
    assert!(!line.is_asserted(), "reading the cause clears it");
    assert_eq!(read(&mut serial, 2), 0x01);
    write(&mut serial, 0, b'x');
    assert_eq!(line.rising_edges(), 2);
    write(&mut serial, 0, b'y');
    assert_eq!(line.rising_edges(), 3, "each byte makes an edge");
    write(&mut serial, 1, 0);
    assert!(!line.is_asserted());
    assert_eq!(read(&mut serial, 2), 0x01);
    write(&mut serial, 1, 2);
    assert_eq!(read(&mut serial, 2), 0x02);
    write(&mut serial, 1, 2);
    assert_eq!(read(&mut serial, 2), 0x01, "it was enabled before");
    assert_eq!(terminal.seen(), b"xy");
}

#[test]
fn received_bytes_interrupt_until_they_are_read() {
    let (mut serial, line, _) = port();
    write(&mut serial, 2, 0x81);
    write(&mut serial, 1, 1);
    assert_eq!(serial.enqueue_input(b"1234567"), 7);
    assert!(line.is_asserted());
    assert_eq!(read(&mut serial, 2), 0xcc, "below the trigger level of 8");
    assert_eq!(serial.enqueue_input(b"8"), 1);
    assert_eq!(read(&mut serial, 2), 0xc4);
    assert_eq!(
        read(&mut serial, 2),
        0xc4,
        "reading the cause does not clear it"
    );
    for byte in b"12345678" {
        assert!(line.is_asserted());
        assert_eq!(read(&mut serial, 5) & 1, 1);
        assert_eq!(read(&mut serial, 0), *byte);
    }
    assert!(!line.is_asserted());
    assert_eq!(read(&mut serial, 5) & 1, 0);
}

#[test]
fn input_waits_for_room() {
    let (mut serial, _, _) = port();
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    serial.set_input_room_event(event.try_clone().unwrap());
    assert_eq!(serial.enqueue_input(b"ab"), 1, "no FIFO, one byte");
    assert_eq!(read(&mut serial, 0), b'a');
    assert_eq!(event.read().unwrap(), 1);
    write(&mut serial, 2, 1);
    let input: Vec<u8> = (0..40).collect();
    assert_eq!(serial.enqueue_input(&input), 16);
    assert_eq!(serial.free_input_bytes(), 0);
    assert_eq!(serial.enqueue_input(&input[16..]), 0);
    for byte in 0..16 {
        assert!(event.read().is_err());
        assert_eq!(read(&mut serial, 0), byte);
    }
    assert_eq!(event.read().unwrap(), 1);
    assert_eq!(serial.enqueue_input(&input[16..20]), 4);
    for _ in 0..4 {
        read(&mut serial, 0);
    }
    assert!(event.read().is_err(), "nothing waits");
    // A cleared FIFO and the end of loopback make room too.
    assert_eq!(serial.enqueue_input(&input), 16);
    write(&mut serial, 2, 3);
    assert_eq!(event.read().unwrap(), 1);
    write(&mut serial, 4, 0x10);
    assert_eq!(serial.enqueue_input(b"x"), 0);
    write(&mut serial, 4, 0);
    assert_eq!(event.read().unwrap(), 1);
}

#[test]
fn a_stalled_reader_makes_the_driver_wait() {
    let (mut serial, line, terminal) = port();
    write(&mut serial, 2, 1);
    write(&mut serial, 1, 2);
    assert_eq!(read(&mut serial, 2), 0xc2);
    terminal.allow(Some(2));
    for byte in 0..18 {
        write(&mut serial, 0, byte);
    }
    assert_eq!(read(&mut serial, 2), 0xc1);
    assert_eq!(read(&mut serial, 5) & 0x60, 0);
    assert!(serial.has_pending_output() && !line.is_asserted());
    terminal.allow(Some(10));
    serial.retry_output();
    assert!(serial.has_pending_output() && !line.is_asserted());
    terminal.allow(None);
    serial.retry_output();
    assert!(!serial.has_pending_output() && line.is_asserted());
    assert_eq!(terminal.seen(), (0..18).collect::<Vec<u8>>());
    // A driver that polls needs nobody's help.
    terminal.allow(Some(0));
    write(&mut serial, 0, 18);
    terminal.allow(None);
    assert_eq!(read(&mut serial, 5), 0x60);
    assert_eq!(terminal.seen().len(), 19);
}

#[test]
fn an_output_that_fails_does_not_stop_the_guest() {
    #[derive(Debug)]
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::BrokenPipe.into())
        }
    }
    let line = Arc::new(TestLine::default());
    let mut serial = Serial::new(line.clone(), Box::new(Broken));
    write(&mut serial, 1, 2);
    for _ in 0..100 {
        write(&mut serial, 0, b'x');
        assert_eq!(read(&mut serial, 5), 0x60);
    }
    assert_eq!(line.rising_edges(), 101);
}

#[test]
fn loopback_receives_what_it_sends_and_overruns() {
    let (mut serial, line, terminal) = port();
    write(&mut serial, 2, 1);
    write(&mut serial, 4, 0x10);
    read(&mut serial, 6);
    write(&mut serial, 1, 0x0d);
    for byte in 0..17 {
        write(&mut serial, 0, byte);
    }
    assert_eq!(read(&mut serial, 2), 0xc6, "line status comes first");
    assert_eq!(read(&mut serial, 5), 0x63);
    assert_eq!(
        read(&mut serial, 5),
        0x61,
        "the error is cleared by reading"
    );
    assert_eq!(
        (0..16).map(|_| read(&mut serial, 0)).collect::<Vec<_>>(),
        (0..16).collect::<Vec<_>>()
    );
    assert!(!line.is_asserted());
    write(&mut serial, 4, 0x14);
    assert_eq!(read(&mut serial, 2), 0xc1, "ringing is told when it ends");
    write(&mut serial, 4, 0x12);
    assert_eq!(read(&mut serial, 2), 0xc0);
    assert_eq!(read(&mut serial, 6), 0x15);
    assert_eq!(read(&mut serial, 6), 0x10);
    assert!(!line.is_asserted() && terminal.seen().is_empty());
}

#[derive(Debug, Clone)]
enum Action {
    Read(u16),
    Write(u16, u8),
    Input(Vec<u8>),
    Allow(Option<usize>),
    Retry,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0u16..8).prop_map(Action::Read),
        (0u16..8, any::<u8>()).prop_map(|(register, value)| Action::Write(register, value)),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Action::Input),
        prop::option::of(0usize..20).prop_map(Action::Allow),
        Just(Action::Retry),
    ]
}

proptest! {
    /// The line is up exactly while a cause is, buffers keep to their size, and input that was taken
    /// while nobody resets the FIFO comes out in order.
    #[test]
    fn holds_its_invariants(actions in prop::collection::vec(action(), 0..200)) {
        let (mut serial, line, terminal) = port();
        for action in actions {
            match action {
                Action::Read(register) => { read(&mut serial, register); }
                Action::Write(register, value) => write(&mut serial, register, value),
                Action::Input(bytes) => {
                    let free = serial.free_input_bytes();
                    prop_assert_eq!(serial.enqueue_input(&bytes), bytes.len().min(free));
                }
                Action::Allow(bytes) => terminal.allow(bytes),
                Action::Retry => serial.retry_output(),
            }
            prop_assert!(serial.received.len() <= 16 && serial.transmit.len() <= 16);
            prop_assert_eq!(line.is_asserted(), serial.cause() != CAUSE_NONE);
        }
    }

    #[test]
    fn input_arrives_whole(input in prop::collection::vec(any::<u8>(), 0..200), reads in prop::collection::vec(1usize..20, 400)) {
        let (mut serial, _, _) = port();
        write(&mut serial, 2, 1);
        let (mut offered, mut output) = (0, Vec::new());
        for count in reads {
            offered += serial.enqueue_input(&input[offered..]);
            for _ in 0..count {
                if read(&mut serial, 5) & 1 != 0 {
                    output.push(read(&mut serial, 0));
                }
            }
        }
        prop_assert_eq!(output, input);
    }
}
