//! The host's side of a tap, for tests: network namespaces, packet sockets, interfaces.

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use libc::{c_int, c_ulong};

use crate::tap::{TUN_DEVICE, ioctl, name::InterfaceName, open_tun_device};

/// How long a test waits for a frame.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` in a thread with a network namespace of its own. Threads that it starts share that one.
///
/// Panics, and so fails the test, where that cannot be.
pub(crate) fn in_new_network(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        assert!(
            std::path::Path::new(TUN_DEVICE).exists(),
            "this test needs {TUN_DEVICE}: load the driver with `modprobe tun`"
        );
        // SAFETY: unshare takes no pointers; it concerns this thread alone.
        let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(
            result,
            0,
            "this test needs a network namespace of its own, and so root: {}",
            io::Error::last_os_error()
        );
        // The kernel's own frames for IPv6 would mix with those of the tests.
        for which in ["all", "default"] {
            let _no_ipv6 =
                std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
        }
        test();
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// An Ethernet frame of `length` bytes, at least 14, with contents that follow from `seed`. Its type is
/// one that no host answers to.
pub(crate) fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0xbb, 0x02, 0, 0, 0, 0, 0xaa, 0x88, 0xb5];
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    frame.resize_with(length, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    });
    frame
}

/// What this host's stack sees on an interface; frames of the type that [`frame`] makes, and of IPv4.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: OwnedFd,
    with_headers: bool,
}

impl PacketSocket {
    pub(crate) fn bind(interface: &str) -> Self {
        let protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        // SAFETY: socket takes no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol.into(),
            )
        };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: `fd` was made above and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self {
            socket,
            with_headers: false,
        };
        let index = InterfaceName::new(interface)
            .unwrap()
            .index()
            .unwrap()
            .unwrap();
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).unwrap(),
            sll_protocol: protocol,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: the address is there, of that length.
        let result = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
        assert_eq!(result, 0, "bind: {}", io::Error::last_os_error());
        let buffer_bytes: c_int = 32 << 20;
        // SAFETY: the option's value is an `int`, of the length given.
        let result = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const buffer_bytes).cast(),
                4,
            )
        };
        assert_eq!(result, 0, "receive buffer: {}", io::Error::last_os_error());
        socket
    }

    /// A socket whose frames have a `virtio_net_hdr` of 10 bytes before them, both ways.
    pub(crate) fn bind_with_headers(interface: &str) -> Self {
        const PACKET_VNET_HDR: c_int = 15;
        let socket = Self {
            with_headers: true,
            ..Self::bind(interface)
        };
        let yes: c_int = 1;
        // SAFETY: the option's value is an `int`, of the length given.
        let result = unsafe {
            libc::setsockopt(
                socket.socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const yes).cast(),
                4,
            )
        };
        assert_eq!(result, 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        socket
    }

    /// As [`receive`](Self::receive), with the header.
    pub(crate) fn receive_with_header(&self) -> Vec<u8> {
        assert!(self.with_headers);
        self.receive()
    }

    /// Sends a frame out of the interface, so that a tap's reader gets it.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is there, of that length.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        assert_eq!(
            sent,
            frame.len().cast_signed(),
            "send: {}",
            io::Error::last_os_error()
        );
    }

    /// The next frame that came in through the interface, from a tap's writer. Frames that the host
    /// itself sends (of other types, or outgoing) are passed over.
    pub(crate) fn receive(&self) -> Vec<u8> {
        self.receive_within(PATIENCE)
            .expect("no frame from the tap")
    }

    /// As [`receive`](Self::receive); `None` if there is none for so long.
    pub(crate) fn receive_within(&self, patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        let mut bytes = vec![0; 1 << 17];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let timeout = c_int::try_from(left.as_millis()).unwrap();
            // SAFETY: one `pollfd` is there.
            if unsafe { libc::poll(&raw mut poll, 1, timeout) } <= 0 {
                return None;
            }
            let (length, outgoing) = self.receive_one(&mut bytes);
            let start = if self.with_headers {
                PACKET_HEADER_BYTES
            } else {
                0
            };
            let ours = matches!(bytes[start + 12..start + 14], [0x88, 0xb5] | [0x08, 0x00]);
            if ours && !outgoing {
                bytes.truncate(length);
                return Some(bytes);
            }
        }
    }

    fn receive_one(&self, bytes: &mut [u8]) -> (usize, bool) {
        let mut address = libc::sockaddr_ll {
            sll_family: 0,
            sll_protocol: 0,
            sll_ifindex: 0,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let mut length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: the buffer and the address are there, of the lengths given.
        let result = unsafe {
            libc::recvfrom(
                self.socket.as_raw_fd(),
                bytes.as_mut_ptr().cast(),
                bytes.len(),
                0,
                (&raw mut address).cast(),
                &raw mut length,
            )
        };
        let received = usize::try_from(result)
            .unwrap_or_else(|_| panic!("recvfrom: {}", io::Error::last_os_error()));
        (received, address.sll_pkttype == libc::PACKET_OUTGOING)
    }
}

/// Makes a tap that outlives its file.
pub(crate) fn make_persistent_tap(name: &str, multi_queue: bool) {
    let more = if multi_queue {
        libc::IFF_MULTI_QUEUE
    } else {
        0
    };
    make_persistent(name, libc::IFF_TAP | libc::IFF_NO_PI | more);
}

/// Makes a tap that outlives its file and belongs to the user `uid`.
pub(crate) fn make_persistent_tap_of(name: &str, uid: c_ulong) {
    let file = make_persistent(name, libc::IFF_TAP | libc::IFF_NO_PI);
    // SAFETY: TUNSETOWNER takes its argument by value.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOWNER, uid) };
    assert_eq!(result, 0, "TUNSETOWNER: {}", io::Error::last_os_error());
}

/// Makes an interface of the TUN kind that outlives its file.
pub(crate) fn make_persistent_tun(name: &str) {
    make_persistent(name, libc::IFF_TUN | libc::IFF_NO_PI);
}

fn make_persistent(name: &str, flags: c_int) -> File {
    let file = open_tun_device(TUN_DEVICE).unwrap();
    ioctl::set_interface(&file, &InterfaceName::new(name).unwrap(), flags).unwrap();
    let yes: c_ulong = 1;
    // SAFETY: TUNSETPERSIST takes its argument by value.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, yes) };
    assert_eq!(result, 0, "TUNSETPERSIST: {}", io::Error::last_os_error());
    file
}

/// The index of an interface that exists.
pub(crate) fn index(name: &str) -> u32 {
    InterfaceName::new(name).unwrap().index().unwrap().unwrap()
}

/// Deletes an interface under its user (RTM_DELLINK of rtnetlink(7)).
pub(crate) fn delete(index: u32) {
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE) };
    assert!(fd >= 0, "netlink: {}", io::Error::last_os_error());
    // SAFETY: `fd` was made above and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };

    let mut message = [0u8; 32];
    message[0..4].copy_from_slice(&32u32.to_ne_bytes());
    message[4..6].copy_from_slice(&libc::RTM_DELLINK.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap();
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    // SAFETY: the message is there, of that length.
    let sent = unsafe {
        libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
        )
    };
    assert_eq!(sent, 32, "netlink: {}", io::Error::last_os_error());

    let mut answer = [0u8; 256];
    // SAFETY: the buffer is there, of that length.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            0,
        )
    };
    assert!(received >= 20, "netlink: {}", io::Error::last_os_error());
    let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
    assert_eq!(
        error,
        0,
        "RTM_DELLINK: {}",
        io::Error::from_raw_os_error(-error)
    );
}

/// Gives up CAP_NET_ADMIN, in this thread alone (capset(2)).
pub(crate) fn drop_net_admin() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    const NET_ADMIN: u32 = 12;
    let header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [Sets::default(); 2];
    // SAFETY: capget fills the two sets that version 3 has.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    assert_eq!(result, 0, "capget: {}", io::Error::last_os_error());
    sets[0].effective &= !(1 << NET_ADMIN);
    // SAFETY: capset reads the two sets that version 3 has.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) };
    assert_eq!(result, 0, "capset: {}", io::Error::last_os_error());
}

/// Bytes of the headers of [`tcp_frame`]: Ethernet, IPv4, TCP.
pub(crate) const TCP_HEADERS_BYTES: usize = 54;
/// Bytes of the header that a packet socket has before a frame.
const PACKET_HEADER_BYTES: usize = 10;

/// A TCP segment over IPv4 whose checksum is still to be made, and the header that says so, and that
/// it is to be cut into segments of `segment_bytes` of payload.
pub(crate) fn tcp_frame(
    payload: &[u8],
    segment_bytes: u16,
) -> ([u8; PACKET_HEADER_BYTES], Vec<u8>) {
    let ip_bytes = u16::try_from(40 + payload.len()).unwrap();
    let mut frame = frame(12, 0)[..12].to_vec();
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0];
    ip.extend(ip_bytes.to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 6, 0, 0, 10, 9, 8, 1, 10, 9, 8, 2]);
    let sum = internet_checksum(&ip, 0);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(&ip);
    // Ports, sequence and acknowledgement numbers, ACK, window; then the pseudo header's sum.
    frame.extend([
        0x30, 0x39, 0x00, 0x50, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0,
    ]);
    let pseudo_header_sum = !internet_checksum(&ip[12..20], 6 + u32::from(ip_bytes - 20));
    frame.extend(pseudo_header_sum.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    let [low, high] = segment_bytes.to_le_bytes();
    ([1, 1, 54, 0, low, high, 34, 0, 16, 0], frame)
}

/// Whether the checksum of a TCP segment as [`tcp_frame`] makes them is right.
pub(crate) fn tcp_checksum_is_right(frame: &[u8]) -> bool {
    let tcp_bytes = u32::try_from(frame.len() - 34).unwrap();
    let pseudo_header = !internet_checksum(&frame[26..34], 6 + tcp_bytes);
    internet_checksum(&frame[34..], u32::from(pseudo_header)) == 0
}

/// The Internet checksum of RFC 1071 over some bytes, and what was summed up before.
fn internet_checksum(bytes: &[u8], mut sum: u32) -> u16 {
    for pair in bytes.chunks(2) {
        let word = [pair[0], pair.get(1).copied().unwrap_or(0)];
        sum += u32::from(u16::from_be_bytes(word));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
