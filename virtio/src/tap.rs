//! A TAP interface: Ethernet frames between a network device of the machine and the host's kernel.
//!
//! Specification: Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h of Linux. Each
//! frame that is read or written begins with a `virtio_net_hdr` of [`HEADER_BYTES`] bytes, little
//! endian (virtio 1.3, 5.1.6), which says what checksums and segmentation are left to the other side.
//!
//! Opened by the thread that assembles the machine; then owned by one network device, and used by that
//! device's worker alone.

mod error;
mod ioctl;
mod name;
mod offloads;
mod vectors;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use libc::c_int;

pub use error::TapError;
use name::InterfaceName;
pub use offloads::TapOffloads;
pub(crate) use vectors::{IoVectorStorage, IoVectors, MAX_PIECES, TooManyPieces};

/// Length of the header before each frame: `struct virtio_net_hdr_v1`, `num_buffers` included.
pub const HEADER_BYTES: usize = 12;

/// What makes TAP interfaces.
const TUN_DEVICE: &str = "/dev/net/tun";

/// One TAP interface, opened for this process alone.
///
/// An interface that was created by opening it vanishes when this value is dropped; one that was
/// there before stays.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    created: bool,
    supported_offloads: TapOffloads,
}

/// What to do about the existence of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existence {
    Demanded,
    Forbidden,
    Either,
}

impl Tap {
    /// Opens the TAP interface `name`, which has to exist. It is left as it is: up or down, with its
    /// addresses and its place in a bridge.
    ///
    /// # Errors
    ///
    /// [`TapError`], each a line that says what is wrong and what to do.
    pub fn open(name: &str) -> Result<Self, TapError> {
        Self::with_existence(name, Existence::Demanded)
    }

    /// Creates the TAP interface `name`, which must not exist, and brings it up. A `%d` in the name
    /// becomes the first free number.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn create(name: &str) -> Result<Self, TapError> {
        Self::with_existence(name, Existence::Forbidden)
    }

    /// Opens the TAP interface `name` if it exists, as [`open`](Self::open) does; creates it
    /// otherwise, as [`create`](Self::create) does.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_or_create(name: &str) -> Result<Self, TapError> {
        Self::with_existence(name, Existence::Either)
    }

    fn with_existence(name: &str, existence: Existence) -> Result<Self, TapError> {
        let name = InterfaceName::new(name)?;
        let index = name
            .index()
            .map_err(|e| TapError::host("look up", &name, e))?;
        match (index, existence) {
            (None, Existence::Demanded) => return Err(TapError::not_found(&name)),
            (Some(_), Existence::Forbidden) => return Err(TapError::already_exists(&name)),
            _ => {}
        }
        let file = open_tun_device(TUN_DEVICE)?;
        let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if index.is_none() {
            // Without it the kernel would attach to an interface that someone made a moment ago.
            flags |= libc::IFF_TUN_EXCL;
        }
        let name = ioctl::set_interface(&file, &name, flags)
            .map_err(|e| interface_error(&file, &name, index.is_some(), e))?;
        let index_now = name
            .index()
            .map_err(|e| TapError::host("look up", &name, e))?;
        if index.is_some() && index != index_now {
            // The interface was deleted between the look-up and the opening, which then made one of
            // that name; it goes away with the file.
            return Err(TapError::not_found(&name));
        }

        let header_bytes = c_int::try_from(HEADER_BYTES).unwrap_or(c_int::MAX);
        ioctl::set_header_bytes(&file, header_bytes)
            .map_err(|e| TapError::host("set the header size of", &name, e))?;
        ioctl::set_header_little_endian(&file)
            .map_err(|e| TapError::host("set the byte order of", &name, e))?;
        let supported_offloads =
            offloads::probe(&file).map_err(|e| TapError::host("probe offloads of", &name, e))?;

        let tap = Self {
            file,
            name: name.to_string(),
            created: index.is_none(),
            supported_offloads,
        };
        if tap.created {
            ioctl::bring_up(&name).map_err(|e| TapError::host("bring up", &name, e))?;
        } else if let Ok(false) = ioctl::is_up(&name) {
            tracing::warn!(
                tap = tap.name,
                "the interface is down: no frame passes until it is brought up"
            );
        }
        Ok(tap)
    }

    /// The interface's name, as the kernel has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether opening it created it, so that it vanishes with this value.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// What [`set_offloads`](Self::set_offloads) may be asked for.
    pub fn supported_offloads(&self) -> TapOffloads {
        self.supported_offloads
    }

    /// Says what the reader of this tap takes: frames without a checksum, and frames that are larger
    /// than the link's and still to be cut. Combinations that the kernel does not know are reduced to
    /// ones that it does (see [`TapOffloads::normalised`]).
    ///
    /// # Errors
    ///
    /// What the host answers; the offloads are then as they were.
    pub fn set_offloads(&self, offloads: TapOffloads) -> io::Result<()> {
        if self.supported_offloads == TapOffloads::NONE && offloads == TapOffloads::NONE {
            return Ok(());
        }
        ioctl::set_offloads(&self.file, offloads.normalised().bits())
    }

    /// The interface's MTU in bytes: the largest frame, without its Ethernet header.
    ///
    /// # Errors
    ///
    /// What the host answers.
    pub fn mtu_bytes(&self) -> Result<u32, TapError> {
        let name = InterfaceName::new(&self.name)?;
        let mtu = ioctl::mtu(&name).map_err(|e| TapError::host("read the MTU of", &name, e))?;
        Ok(u32::try_from(mtu).unwrap_or(0))
    }

    /// Sets the interface's MTU in bytes.
    ///
    /// # Errors
    ///
    /// What the host answers: out of the range 68 to 65521, or no permission.
    pub fn set_mtu_bytes(&self, mtu_bytes: u16) -> Result<(), TapError> {
        let name = InterfaceName::new(&self.name)?;
        ioctl::set_mtu(&name, c_int::from(mtu_bytes))
            .map_err(|e| TapError::host("set the MTU of", &name, e))
    }

    /// Writes one frame, header first. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the interface has no room; `InvalidInput` for a header that makes no sense;
    /// others as the host answers.
    pub(crate) fn write_frame(&self, vectors: &IoVectors<'_, '_>) -> io::Result<usize> {
        vectors.write_to(&self.file)
    }

    /// Reads one frame, header first. A frame that is longer than `vectors` is cut without a sign.
    /// Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is no frame; others as the host answers.
    pub(crate) fn read_frame(&self, vectors: &IoVectors<'_, '_>) -> io::Result<usize> {
        vectors.read_from(&self.file)
    }

    /// A tap that is in truth one end of a socket pair that keeps the bounds of messages, so that
    /// tests can be the interface's other side without being root.
    #[cfg(any(test, fuzzing))]
    #[cfg_attr(
        not(test),
        expect(clippy::unwrap_used, reason = "no part of the product")
    )]
    pub fn from_socket(socket: std::os::unix::net::UnixDatagram, supported: TapOffloads) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            file: File::from(std::os::fd::OwnedFd::from(socket)),
            name: "socket".to_owned(),
            created: false,
            supported_offloads: supported,
        }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn open_tun_device(path: &str) -> Result<File, TapError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoTunDevice,
            Some(libc::EACCES | libc::EPERM) => TapError::TunDevicePermission,
            _ => TapError::TunDevice(error),
        })
}

/// Reads the kernel's answer to TUNSETIFF.
fn interface_error(file: &File, name: &InterfaceName, existed: bool, error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::EBUSY) if existed => TapError::busy(name),
        Some(libc::EBUSY) => TapError::already_exists(name),
        Some(libc::EPERM | libc::EACCES) => TapError::permission(name, existed),
        Some(libc::EINVAL) if existed && is_multi_queue_tap(file, name) => {
            TapError::multi_queue(name)
        }
        Some(libc::EINVAL) if existed => TapError::not_a_tap(name),
        _ => TapError::host("open", name, error),
    }
}

/// Whether `name` is a TAP interface that was made with several queues. The kernel refuses those with
/// the same error as it does interfaces of another kind, until it is asked in the other way.
fn is_multi_queue_tap(file: &File, name: &InterfaceName) -> bool {
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    ioctl::set_interface(file, name, flags).is_ok()
}

#[cfg(test)]
pub(crate) mod tests;
