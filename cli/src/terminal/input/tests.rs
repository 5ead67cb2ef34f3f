use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

fn is_ready(input: &TerminalInput) -> bool {
    let source = input.event_source().unwrap();
    let mut descriptors = [PollFd::new(&source, PollFlags::IN)];
    poll(&mut descriptors, Some(&Timespec::default())).unwrap() > 0
}

#[test]
fn text_goes_to_the_guest_up_to_the_escape_key() {
    let (keyboard, mut fingers) = io::pipe().unwrap();
    let (mut input, mut guest) = TerminalInput::new(&keyboard, EscapeKey(Some(0x1d))).unwrap();
    assert_eq!(input.service(), Typed::Text, "nothing was typed");
    fingers.write_all(b"root\r").unwrap();
    assert!(is_ready(&input));
    assert_eq!(input.service(), Typed::Text);
    fingers.write_all(b"ab\x1dcd").unwrap();
    assert_eq!(input.service(), Typed::Escape);
    let mut text = [0; 7];
    guest.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"root\rab");
}

#[test]
fn a_guest_that_takes_nothing_can_still_be_left() {
    let (keyboard, mut fingers) = io::pipe().unwrap();
    let (mut input, _guest) = TerminalInput::new(&keyboard, EscapeKey(Some(0x1d))).unwrap();
    for _ in 0..256 {
        fingers.write_all(&[b'x'; 1024]).unwrap();
        assert_eq!(input.service(), Typed::Text);
    }
    fingers.write_all(b"\x1d").unwrap();
    assert_eq!(input.service(), Typed::Escape);
}

#[test]
fn a_terminal_that_is_gone_ends_the_input_and_falls_silent() {
    let (keyboard, fingers) = io::pipe().unwrap();
    let (mut input, mut guest) = TerminalInput::new(&keyboard, EscapeKey(None)).unwrap();
    drop(fingers);
    assert!(is_ready(&input));
    assert_eq!(input.service(), Typed::Text);
    assert!(!is_ready(&input));
    assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
}
