//! A TAP device of the host, or of the lab, for one machine.

use std::fs::File;
use std::process::Command;

use vmm_sys_util::ioctl::{ioctl_with_ref, ioctl_with_val};
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(TUNSETIFF, 'T' as u32, 202, libc::c_int);
ioctl_iow_nr!(TUNSETPERSIST, 'T' as u32, 203, libc::c_int);

/// A TAP device that stays when no program has it open, and goes with this value.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
}

impl Tap {
    /// Makes the device `name`, ready for multi-segment packets with headers, with `address` (as in
    /// `10.0.0.1/24`), and sets it up.
    pub(crate) fn new(name: &str, address: &str) -> Self {
        set_persistent(name, true);
        ip(&["addr", "add", address, "dev", name]);
        ip(&["link", "set", name, "up"]);
        Self {
            name: name.to_owned(),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        set_persistent(&self.name, false);
    }
}

fn set_persistent(name: &str, persistent: bool) {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    // SAFETY: the structure is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::try_from(from).unwrap();
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap();
    // SAFETY: the kernel reads one ifreq, which lives until the call returns.
    let status = unsafe { ioctl_with_ref(&device, TUNSETIFF(), &request) };
    assert_eq!(status, 0, "{name}: {}", std::io::Error::last_os_error());
    // SAFETY: the argument is a number.
    let status = unsafe { ioctl_with_val(&device, TUNSETPERSIST(), u64::from(persistent)) };
    assert_eq!(status, 0, "{name}: {}", std::io::Error::last_os_error());
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().unwrap();
    assert!(status.success(), "ip {}", words.join(" "));
}
