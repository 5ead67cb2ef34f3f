//! The terminal: raw while a machine runs, and as before after every way out.

use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::command::{send, until, wait};
use super::guest::{Kernel, crash, echo, idle, power_off, say};
use super::pseudo_terminal::Session;

#[test]
fn the_escape_key_leaves_and_all_before_it_is_the_guests() {
    let kernel = Kernel::new(&[say("ready"), echo()].concat());
    let mut session = Session::start(&kernel.arguments(&[]));
    session.see("ready");
    until("raw mode", || session.is_raw());
    session.type_keys(b"a\x03\x1a\x04z");
    session.see("a\x03\x1a\x04z");
    session.type_keys(b"\x1d");
    assert_eq!(wait(&mut session.child).code(), Some(0));
    assert!(session.is_as_before());
}

#[test]
fn another_escape_key_leaves_a_guest_that_takes_no_input() {
    let kernel = Kernel::new(&[say("ready"), idle()].concat());
    let mut session = Session::start(&kernel.arguments(&["--escape=^a"]));
    session.see("ready");
    until("raw mode", || session.is_raw());
    for _ in 0..40 {
        session.type_keys(&[b'x'; 256]);
    }
    session.type_keys(b"\x1d");
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(session.child.try_wait().unwrap().is_none());
    session.type_keys(b"\x01");
    assert_eq!(wait(&mut session.child).code(), Some(0));
    assert!(session.is_as_before());
}

#[test]
fn every_end_of_the_guest_gives_the_terminal_back() {
    for (end, status) in [(power_off(), 0), (crash(), 3)] {
        let kernel = Kernel::new(&end);
        let mut session = Session::start(&kernel.arguments(&[]));
        assert_eq!(wait(&mut session.child).code(), Some(status));
        assert!(session.is_as_before());
    }
}

#[test]
fn signals_and_crashes_give_the_terminal_back() {
    for signal in [
        Signal::TERM,
        Signal::HUP,
        Signal::SEGV,
        Signal::ABORT,
        Signal::BUS,
    ] {
        let kernel = Kernel::new(&[say("ready"), idle()].concat());
        let mut session = Session::start(&kernel.arguments(&[]));
        session.see("ready");
        until("raw mode", || session.is_raw());
        send(&session.child, signal);
        let status = wait(&mut session.child);
        if matches!(signal, Signal::TERM | Signal::HUP) {
            assert_eq!(status.code(), Some(128 + signal.as_raw()));
        } else {
            assert_eq!(status.signal(), Some(signal.as_raw()));
        }
        assert!(session.is_as_before(), "{signal:?}");
    }
}

#[test]
fn a_stopped_machine_lends_the_terminal_to_the_shell() {
    let kernel = Kernel::new(&[say("ready"), echo()].concat());
    let mut session = Session::start(&kernel.arguments(&[]));
    session.see("ready");
    until("raw mode", || session.is_raw());
    send(&session.child, Signal::TSTP);
    let process = Pid::from_child(&session.child);
    let (_, status) = waitpid(Some(process), WaitOptions::UNTRACED)
        .unwrap()
        .unwrap();
    assert!(status.stopped());
    assert!(session.is_as_before());
    send(&session.child, Signal::CONT);
    until("raw mode again", || session.is_raw());
    session.type_keys(b"on");
    session.see("on");
    session.type_keys(b"\x1d");
    assert_eq!(wait(&mut session.child).code(), Some(0));
    assert!(session.is_as_before());
}

#[test]
fn a_bad_machine_never_touches_the_terminal() {
    let mut session = Session::start(&["run", "--kernel", "/nonexistent"]);
    assert_eq!(wait(&mut session.child).code(), Some(2));
    assert!(session.is_as_before());
}
