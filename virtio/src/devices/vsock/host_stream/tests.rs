use std::io::{Read as _, Write as _};

use super::*;

fn pair() -> (HostStream, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    (HostStream::new(near), far)
}

fn first_line(text: &[u8]) -> (FirstLine, HostStream, UnixStream) {
    let (mut stream, mut far) = pair();
    far.write_all(text).unwrap();
    stream.note_ready(EventSet::IN);
    (stream.read_first_line(), stream, far)
}

#[test]
fn first_lines_name_a_port() {
    for (text, port) in [
        (&b"CONNECT 52\n"[..], 52),
        (b"connect 0\r\n", 0),
        (b"  Connect   4294967295 \n", u32::MAX),
        (b"CONNECT 0000000000000052\nCONNECT 7\n", 52),
    ] {
        assert_eq!(first_line(text).0, FirstLine::Port(port), "{text:?}");
    }
}

#[test]
fn other_first_lines_are_wrong() {
    for text in [
        &b"\n"[..],
        b"CONNECT\n",
        b"CONNECT \n",
        b"CONNECT 52 53\n",
        b"CONNECT -1\n",
        b"CONNECT +1\n",
        b"CONNECT 4294967296\n",
        b"CONNECT 0x34\n",
        b"LISTEN 52\n",
        b"CONNECT \xff\n",
        b"GET / HTTP/1.1 and so on, without an end",
    ] {
        assert_eq!(first_line(text).0, FirstLine::Wrong, "{text:?}");
    }
}

#[test]
fn a_first_line_comes_in_pieces_and_nothing_behind_it_is_lost() {
    let (read, mut stream, mut far) = first_line(b"CONN");
    assert_eq!(read, FirstLine::Incomplete);
    assert!(!stream.has_data());
    far.write_all(b"ECT 52\nhello").unwrap();
    stream.note_ready(EventSet::IN);
    assert_eq!(stream.read_first_line(), FirstLine::Port(52));
    let mut rest = [0; 5];
    (&stream.socket).read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"hello");
}

#[test]
fn a_client_that_goes_before_its_first_line_is_wrong() {
    let (_, mut stream, far) = first_line(b"CONN");
    drop(far);
    stream.note_ready(EventSet::IN | EventSet::HANG_UP);
    assert_eq!(stream.read_first_line(), FirstLine::Wrong);
}

#[test]
fn a_client_is_greeted_by_its_port() {
    let (mut stream, mut far) = pair();
    stream.write_greeting(u32::MAX).unwrap();
    let mut line = [0; 14];
    far.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 4294967295\n");
    drop(far);
    assert_eq!(stream.write_greeting(1), Err(Closed));
}
