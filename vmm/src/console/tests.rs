use std::fs::{self, File};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;

/// Services the console as a driver does that has room, until `enough` bytes have come, or for two
/// seconds.
fn receive(console: &mut Console, room: usize, enough: usize) -> Vec<u8> {
    let mut received = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    while received.len() < enough && Instant::now() < deadline {
        let bytes = console.service(room);
        assert!(bytes.len() <= room);
        received.extend_from_slice(bytes);
        if received.len() < enough {
            is_ready(console, Duration::from_millis(100));
        }
    }
    received
}

fn is_ready(console: &Console, patience: Duration) -> bool {
    let Some(source) = console.event_source() else {
        return false;
    };
    let timeout = Timespec::try_from(patience).unwrap();
    let mut descriptors = [PollFd::new(&source, PollFlags::IN)];
    poll(&mut descriptors, Some(&timeout)).unwrap() > 0
}

fn wait_until_settled(console: &mut Console) {
    for _ in 0..10 {
        if !is_ready(console, Duration::from_millis(10)) {
            return;
        }
        console.service(64);
    }
    panic!("the console does not settle: {console:?}");
}

fn socket_console() -> (tempfile::TempDir, PathBuf, Console) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serial");
    let console = Console::open(&SerialConfig::Socket(path.clone())).unwrap();
    (directory, path, console)
}

#[test]
fn a_pipe_gives_its_bytes_as_there_is_room_and_then_ends() {
    let (reader, mut writer) = io::pipe().unwrap();
    let mut console = Console::from_parts(Some(Box::new(reader)), Box::new(io::sink())).unwrap();
    assert!(!is_ready(&console, Duration::ZERO));
    writer.write_all(b"hello").unwrap();
    assert_eq!(console.service(2), b"he");
    assert_eq!(console.service(0), b"");
    assert!(!is_ready(&console, Duration::ZERO), "no room, no event");
    assert_eq!(console.service(16), b"llo");
    assert_eq!(console.service(16), b"", "an empty pipe is not waited for");
    drop(writer);
    assert!(is_ready(&console, Duration::ZERO));
    assert_eq!(console.service(16), b"");
    assert!(!is_ready(&console, Duration::ZERO), "an end comes once");
}

#[test]
fn files_and_dev_null_are_inputs_although_epoll_refuses_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    fs::write(&path, b"typed").unwrap();
    let input = Box::new(File::open(&path).unwrap());
    let mut console = Console::from_parts(Some(input), Box::new(io::sink())).unwrap();
    assert_eq!(console.service(0), b"");
    assert!(!is_ready(&console, Duration::ZERO));
    assert_eq!(console.service(3), b"typ");
    assert_eq!(receive(&mut console, 64, 2), b"ed");
    wait_until_settled(&mut console);

    let null = Box::new(File::open("/dev/null").unwrap());
    let mut console = Console::from_parts(Some(null), Box::new(io::sink())).unwrap();
    wait_until_settled(&mut console);
}

#[test]
fn none_and_file_have_no_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    fs::write(&path, b"from an earlier run").unwrap();
    let mut console = Console::open(&SerialConfig::File(path.clone())).unwrap();
    assert!(console.event_source().is_none());
    assert_eq!(console.service(64), b"");
    console.output().write_all(b"first ").unwrap();
    console.output().write_all(b"second").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first second");

    let console = Console::open(&SerialConfig::None).unwrap();
    assert!(console.event_source().is_none());
    assert!(format!("{console:?}").contains("nowhere"));
    console.output().write_all(b"dropped").unwrap();
}

#[test]
fn a_file_is_touched_by_the_first_byte_alone() {
    let directory = tempfile::tempdir().unwrap();
    let fresh = directory.path().join("fresh");
    let former = directory.path().join("former");
    fs::write(&former, b"from an earlier run").unwrap();
    for path in [&fresh, &former] {
        drop(Console::open(&SerialConfig::File(path.clone())).unwrap());
    }
    assert!(!fresh.exists(), "a machine that never ran leaves none");
    assert_eq!(fs::read(&former).unwrap(), b"from an earlier run");
    let console = Console::open(&SerialConfig::File(fresh.clone())).unwrap();
    let mut output = console.output();
    output.write_all(b"kept").unwrap();
    drop(console);
    output.write_all(b" too").unwrap();
    drop(output);
    assert_eq!(fs::read(&fresh).unwrap(), b"kept too");
}

#[test]
fn a_named_pipe_without_a_reader_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
    let console = Console::open(&SerialConfig::File(path.clone())).unwrap();
    console.let_output_wait(false);
    console.output().write_all(&vec![b'x'; 1 << 20]).unwrap();
    drop(console);
    assert!(path.exists());
}

#[test]
fn a_pseudo_terminal_carries_bytes_as_they_are() {
    let mut console = Console::open(&SerialConfig::Pty).unwrap();
    let path = console.pty_path().unwrap().to_owned();
    assert!(!is_ready(&console, Duration::ZERO), "nobody has opened it");
    let mut user = File::options().read(true).write(true).open(&path).unwrap();
    user.write_all(b"\x03\r\n").unwrap();
    assert_eq!(receive(&mut console, 64, 3), b"\x03\r\n");
    console.output().write_all(b"login:\n").unwrap();
    let mut buffer = [0; 7];
    user.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"login:\n");
    drop(user);
    wait_until_settled(&mut console);
    console.output().write_all(&vec![b'x'; 1 << 20]).unwrap();
}

#[test]
fn a_socket_serves_one_client_after_the_other() {
    let (_directory, path, mut console) = socket_console();
    console.output().write_all(b"nobody hears this").unwrap();
    for text in [b"first ", b"second"] {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(text).unwrap();
        assert_eq!(receive(&mut console, 64, 6), text);
        console.output().write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        drop(client);
        wait_until_settled(&mut console);
    }
}

#[test]
fn a_second_client_is_let_go_while_the_first_is_there() {
    let (_directory, path, mut console) = socket_console();
    let mut first = UnixStream::connect(&path).unwrap();
    console.service(0);
    let mut second = UnixStream::connect(&path).unwrap();
    assert!(is_ready(&console, Duration::from_secs(1)));
    console.service(0);
    assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
    first.write_all(b"still here").unwrap();
    assert_eq!(receive(&mut console, 64, 10), b"still here");

    // A client that left while the guest took no input makes way for the next.
    console.service(0);
    drop(first);
    let mut third = UnixStream::connect(&path).unwrap();
    assert!(is_ready(&console, Duration::from_secs(1)));
    console.service(0);
    third.write_all(b"next").unwrap();
    assert_eq!(receive(&mut console, 64, 4), b"next");
}

#[test]
fn a_client_that_has_said_all_may_still_listen() {
    let (_directory, path, mut console) = socket_console();
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"poweroff\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receive(&mut console, 64, 9), b"poweroff\n");
    wait_until_settled(&mut console);
    console.output().write_all(b"good bye").unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"good bye");
    drop(client);
    wait_until_settled(&mut console);
    assert!(format!("{console:?}").contains("socket without client"));
}

#[test]
fn a_socket_path_is_ours_alone_or_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("serial");
    let open = || Console::open(&SerialConfig::Socket(path.clone()));

    drop(UnixListener::bind(&path).unwrap());
    let console = open().expect("a stale socket is replaced");
    let error = open().unwrap_err();
    assert!(matches!(
        error,
        ConsoleError::Socket(ListenError::InUse { .. })
    ));
    assert!(UnixStream::connect(&path).is_ok(), "it was left alone");
    drop(console);
    assert!(!path.exists(), "ours is removed");

    fs::write(&path, b"precious").unwrap();
    assert!(matches!(
        open().unwrap_err(),
        ConsoleError::Socket(ListenError::NotASocket { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    let console = open().unwrap();
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(console);
    assert!(path.exists(), "somebody else's stays");
    drop(other);
}

#[test]
fn errors_are_one_line_with_a_remedy() {
    for config in [
        SerialConfig::File("/nonexistent/log".into()),
        SerialConfig::Socket("/nonexistent/socket".into()),
        SerialConfig::File("/".into()),
    ] {
        let error = Console::open(&config).unwrap_err();
        assert!(error.is_configuration());
        let text = crate::config::Problem::from(error).to_string();
        assert!(text.starts_with("serial: cannot "), "{text}");
        assert!(text.contains(": name a "), "{text}");
        assert!(!text.contains('\n'));
    }
}
