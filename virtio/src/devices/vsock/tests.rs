//! A socket device under its driver's twin, with real sockets on the host's side.

mod guest;
mod hostile;
mod lifecycle;
mod streams;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::testing::conformance::{self, Subject};
use crate::testing::{Driver, register};
use guest::{Guest, packet};
use packet::Operation;

/// For what a host's stream has to do; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A device's socket in a folder that is gone with it.
pub(super) struct Host {
    folder: tempfile::TempDir,
    pub socket: Arc<HostSocket>,
}

impl Host {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm");
        let listener = UnixListener::bind(&path).unwrap();
        Self {
            socket: Arc::new(HostSocket::new(listener, path).unwrap()),
            folder,
        }
    }

    pub fn device(&self, change: impl FnOnce(&mut VsockOptions)) -> Vsock {
        let mut options = VsockOptions::new("vsock", guest::CID);
        change(&mut options);
        Vsock::new(Arc::clone(&self.socket), options, Arc::default()).unwrap()
    }

    /// A server of the host's for `port`.
    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("vm_{port}"))).unwrap()
    }

    /// A client of the host's that wants `port` of the guest.
    pub fn client(&self, port: u32) -> UnixStream {
        let mut stream = patient(UnixStream::connect(self.socket.path()).unwrap());
        writeln!(stream, "CONNECT {port}").unwrap();
        stream
    }
}

fn patient(stream: UnixStream) -> UnixStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn accept(server: &UnixListener) -> UnixStream {
    patient(server.accept().unwrap().0)
}

/// The next line of a host's stream, without its end.
fn line(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        text.push(char::from(byte[0]));
    }
    text
}

/// Bytes of which none can be lost, doubled or out of place unseen.
fn content(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Asks for a port at which nobody listens, and is refused.
fn exercise(driver: &mut Driver) {
    let room = driver.allocate(256);
    driver.submit(0, &[testing_buffer(room, 256)]);
    let request = packet(Operation::Request, 50, 60, 0);
    let at = driver.place(&request.to_bytes());
    let written = driver.request(1, &[crate::testing::Buffer::Readable(at, 44)]);
    assert_eq!(written, 0);
    let (_, written) = driver.wait_used(0);
    assert_eq!(written, 44);
    let bytes = driver.fetch(room, 44).try_into().unwrap();
    assert_eq!(packet::Header::from_bytes(&bytes), request.refusal());
}

fn testing_buffer(address: u64, length: u32) -> crate::testing::Buffer {
    crate::testing::Buffer::Writable(address, length)
}

#[test]
fn conforms() {
    let host = Host::new();
    conformance::run(&Subject {
        make: &|| Box::new(host.device(|_| {})),
        features: FEATURE_STREAM,
        eager_queue: 1,
        exercise: &exercise,
    });
}

#[test]
fn configuration_space_is_the_identifier() {
    let host = Host::new();
    let mut driver = Driver::new(Box::new(
        host.device(|options| options.guest_cid = 0x0403_0201),
    ));
    assert_eq!(driver.read(register::DEVICE_ID), 19);
    assert_eq!(driver.config(0, 12), [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(driver.offered_features() & 0xff, FEATURE_STREAM);
}

#[test]
fn reserved_identifiers_and_numbers_out_of_range_are_refused() {
    for cid in [0, 1, 2, u32::MAX] {
        let error = VsockOptions::new("vsock", cid).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cid {cid} is reserved: use 3 to 4294967294")
        );
    }
    for cid in [3, u32::MAX - 1] {
        assert_eq!(VsockOptions::new("vsock", cid).check(), Ok(()));
    }
    for (connections, good) in [(0, false), (1, true), (1024, true), (1025, false)] {
        let mut options = VsockOptions::new("vsock", 3);
        options.connections = connections;
        assert_eq!(options.check().is_ok(), good, "{connections}");
    }
}

fn path_of(host: &Host, port: u32) -> PathBuf {
    Path::new(&format!("{}_{port}", host.socket.path().display())).to_owned()
}
