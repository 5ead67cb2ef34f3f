//! A network of a test's own: a network namespace, a TAP device in it, and a service to talk to.
//!
//! A namespace belongs to a thread, and the processes and threads that it starts inherit it. So tests run
//! side by side, all with the same names and addresses, and nothing is left when they end. Needs root.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The host's address, which guests talk to.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The address that guests give themselves.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// UDP port of the echo service.
pub const PORT: u16 = 7777;

/// Moves the calling thread into a network namespace of its own.
///
/// # Panics
///
/// When the kernel refuses, as it does without root's rights.
pub fn enter_namespace() {
    // SAFETY: changes this thread's namespace and nothing in memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(
        result,
        0,
        "a network namespace of its own needs root: {}",
        io::Error::last_os_error()
    );
}

/// Creates the TAP device `name` so that it stays when nobody has it open, as an administrator would.
///
/// # Panics
///
/// When the kernel refuses.
pub fn create_tap(name: &str) {
    let tun = occupy_tap(name);
    // SAFETY: the request takes a number, not a pointer.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, 1) };
    assert_eq!(result, 0, "TUNSETPERSIST: {}", io::Error::last_os_error());
}

/// Waits for the interface `name` to exist, gives it the host's address, and turns it on.
///
/// # Panics
///
/// When it does not appear within ten seconds, or the kernel refuses.
pub fn configure(name: &str) {
    // Any socket does for these requests.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    let start = Instant::now();
    while !exists(name) {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no interface {name}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    for (request, address) in [
        (libc::SIOCSIFADDR, HOST),
        (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
    ] {
        let mut interface = interface_request(name);
        interface.ifr_ifru.ifru_addr = socket_address(address);
        control(&socket, request, &raw mut interface);
    }
    let mut interface = interface_request(name);
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    interface.ifr_ifru.ifru_flags = i16::try_from(flags).expect("flags of 16 bits");
    control(&socket, libc::SIOCSIFFLAGS, &raw mut interface);
}

/// Whether there is an interface `name`.
fn exists(name: &str) -> bool {
    let name = std::ffi::CString::new(name).expect("a name without zero bytes");
    // SAFETY: the name is a string that ends in a zero byte and outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// Starts the service that sends each UDP packet back. It ends with the process.
///
/// # Panics
///
/// When the host's address is not there: see [`configure`].
pub fn start_echo_service() {
    let socket = UdpSocket::bind((HOST, PORT)).expect("the host's address");
    std::thread::spawn(move || {
        let mut packet = [0; 65536];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            // A guest that is gone is no reason to stop.
            let _ = socket.send_to(&packet[..length], peer);
        }
    });
}

/// Starts sending broadcasts to the guest's network, one every few milliseconds, so that packets arrive
/// whatever the guest does. It ends with the process.
///
/// # Panics
///
/// When the host's address is not there: see [`configure`].
pub fn start_chatter() {
    let socket = UdpSocket::bind((HOST, 0)).expect("the host's address");
    socket.set_broadcast(true).expect("broadcasts");
    std::thread::spawn(move || {
        loop {
            // The interface may be down for a moment, between two machines.
            let _ = socket.send_to(&[0; 100], (Ipv4Addr::new(10, 77, 0, 255), 9));
            std::thread::sleep(Duration::from_millis(3));
        }
    });
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: a plain structure of C, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "{name} is too long");
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request
}

/// The address as the kernel wants it in `ifr_addr`: family, port, then the address in network order.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: a plain structure of C, for which zeroes are a value.
    let mut result: libc::sockaddr = unsafe { std::mem::zeroed() };
    result.sa_family = libc::sa_family_t::try_from(libc::AF_INET).expect("a small number");
    for (place, byte) in result.sa_data[2..].iter_mut().zip(address.octets()) {
        *place = byte.cast_signed();
    }
    result
}

fn control(file: &impl AsRawFd, request: libc::c_ulong, argument: *mut libc::ifreq) {
    // SAFETY: these requests read and write one `ifreq`, which the caller lends.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    assert_eq!(
        result,
        0,
        "request {request:#x}: {}",
        io::Error::last_os_error()
    );
}

/// Holds the TAP device `name` open, as another program would that uses it.
///
/// # Panics
///
/// When the kernel refuses.
pub fn occupy_tap(name: &str) -> File {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("/dev/net/tun");
    let mut request = interface_request(name);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("flags of 16 bits");
    control(&tun, libc::TUNSETIFF, &raw mut request);
    tun
}
