//! The control calls of TUN/TAP (if_tun.h) and of network interfaces (netdevice(7)).

use std::ffi::c_short;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use libc::{c_int, c_uint, c_ulong, ifreq};

use super::name::InterfaceName;

/// TUNSETIFF: ties `file` to the interface `name`. Gives the name that the interface has got.
pub(super) fn set_interface(
    file: &File,
    name: &InterfaceName,
    flags: c_int,
) -> io::Result<InterfaceName> {
    let mut request = request_for(name);
    // The kernel's field is 16 unsigned bits, of which IFF_TUN_EXCL is the highest.
    request.ifr_ifru.ifru_flags = low_16_bits(flags);
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is there for it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result)?;
    InterfaceName::from_ifreq_name(&request.ifr_name)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// TUNSETVNETHDRSZ: the length of the header before each frame.
pub(super) fn set_header_bytes(file: &File, bytes: c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which is there for it.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

/// TUNSETVNETLE: the header's fields are little endian, whatever the host is.
pub(super) fn set_header_little_endian(file: &File) -> io::Result<()> {
    let yes: c_int = 1;
    // SAFETY: TUNSETVNETLE reads one `int`, which is there for it.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETLE, &raw const yes) })
}

/// TUNSETOFFLOAD: what the reader takes. The argument is the value itself.
pub(super) fn set_offloads(file: &File, offloads: c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    check(unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            c_ulong::from(offloads),
        )
    })
}

/// Sets the interface's IFF_UP.
pub(super) fn bring_up(name: &InterfaceName) -> io::Result<()> {
    let (socket, mut request) = flags_of(name)?;
    // SAFETY: SIOCGIFFLAGS has filled this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | low_16_bits(libc::IFF_UP);
    interface_call(&socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Whether the interface has IFF_UP.
pub(super) fn is_up(name: &InterfaceName) -> io::Result<bool> {
    let (_, request) = flags_of(name)?;
    // SAFETY: SIOCGIFFLAGS has filled this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags) & libc::IFF_UP != 0)
}

/// The interface's MTU in bytes.
pub(super) fn mtu(name: &InterfaceName) -> io::Result<c_int> {
    let socket = UnixDatagram::unbound()?;
    let mut request = request_for(name);
    interface_call(&socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled this field of the union.
    Ok(unsafe { request.ifr_ifru.ifru_mtu })
}

/// Sets the interface's MTU in bytes.
pub(super) fn set_mtu(name: &InterfaceName, bytes: c_int) -> io::Result<()> {
    let mut request = request_for(name);
    request.ifr_ifru.ifru_mtu = bytes;
    interface_call(&UnixDatagram::unbound()?, libc::SIOCSIFMTU, &mut request)
}

fn flags_of(name: &InterfaceName) -> io::Result<(UnixDatagram, ifreq)> {
    // Any socket takes calls for interfaces; this kind is there without an IP stack too.
    let socket = UnixDatagram::unbound()?;
    let mut request = request_for(name);
    interface_call(&socket, libc::SIOCGIFFLAGS, &mut request)?;
    Ok((socket, request))
}

fn interface_call(socket: &UnixDatagram, call: c_ulong, request: &mut ifreq) -> io::Result<()> {
    // SAFETY: the calls on interfaces read and write one `ifreq`, which is there for them.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), call, std::ptr::from_mut(request)) })
}

/// A request with the name and otherwise zeros; `ifru_map` is the union's longest field.
fn request_for(name: &InterfaceName) -> ifreq {
    let zeros = libc::__c_anonymous_ifru_map {
        mem_start: 0,
        mem_end: 0,
        base_addr: 0,
        irq: 0,
        dma: 0,
        port: 0,
    };
    ifreq {
        ifr_name: name.to_ifreq_name(),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_map: zeros },
    }
}

fn low_16_bits(flags: c_int) -> c_short {
    let [low, high, ..] = flags.to_le_bytes();
    c_short::from_le_bytes([low, high])
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
