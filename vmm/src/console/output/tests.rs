use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// More than a pipe holds.
const PLENTY: usize = 1 << 20;

fn pipe_output() -> (io::PipeReader, Output) {
    let (reader, writer) = io::pipe().unwrap();
    let destination = Destination::descriptor(&writer, WhenFull::Wait).unwrap();
    (reader, Output::new(destination))
}

#[test]
fn a_slow_reader_of_a_pipe_gets_everything() {
    let (mut reader, mut output) = pipe_output();
    let writer = thread::spawn(move || output.write_all(&vec![b'x'; PLENTY]));
    thread::sleep(Duration::from_millis(20));
    let mut received = Vec::new();
    reader.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), PLENTY);
    writer.join().unwrap().unwrap();
}

#[test]
fn a_writer_that_may_no_longer_wait_goes_on() {
    let (reader, mut output) = pipe_output();
    let handle = output.clone();
    let writer = thread::spawn(move || output.write_all(&vec![b'x'; PLENTY]));
    thread::sleep(Duration::from_millis(20));
    assert!(!writer.is_finished());
    let before = Instant::now();
    handle.let_wait(false);
    writer.join().unwrap().unwrap();
    assert!(before.elapsed() < Duration::from_secs(5));
    drop(reader);
}

#[test]
fn a_closed_pipe_takes_output_away_for_good() {
    let (reader, mut output) = pipe_output();
    drop(reader);
    for _ in 0..3 {
        output.write_all(b"lost").unwrap();
        output.flush().unwrap();
    }
    assert_eq!(format!("{output:?}"), "nowhere");
}

#[test]
fn a_full_disk_loses_only_what_did_not_fit() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut output = Output::new(Destination::descriptor(&full, WhenFull::Wait).unwrap());
    output.write_all(b"lost").unwrap();
    assert_eq!(format!("{output:?}"), "a descriptor");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut output = Output::new(Destination::Nowhere);
    output.write_all(b"nobody is there").unwrap();
    output.connect(Destination::client(ours));
    output.write_all(&vec![b'x'; PLENTY]).unwrap();
    assert_eq!(format!("{output:?}"), "a descriptor");
    drop(theirs);
    output.write_all(b"nobody is left").unwrap();
    assert_eq!(format!("{output:?}"), "nowhere");
}
