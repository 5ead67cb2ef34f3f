//! The devices, and what is kept of the host's from input to input.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use block::{CacheMode, Disk, DiskOptions, EngineKind};
use virtio::VirtioDevice;
use virtio::devices::blk::{Blk, BlkOptions};
use virtio::devices::net::{MacAddress, Net, NetOptions};
use virtio::devices::rng::Rng;
use virtio::tap::{Tap, TapOffloads};

use super::Pace;

const IMAGE_BYTES: usize = 64 << 10;

/// A device, and the far side of its network where it has one.
pub struct Device {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) link: Option<UnixDatagram>,
    pub(super) is_disk: bool,
}

/// An image in memory, opened for writing and for reading alone.
struct Image {
    file: File,
    disks: [Disk; 2],
}

thread_local! {
    static IMAGE: OnceCell<Image> = const { OnceCell::new() };
    static LINK: OnceCell<(Arc<Tap>, UnixDatagram)> = const { OnceCell::new() };
}

impl Device {
    /// The device that an input's first byte says, as new.
    pub fn new(kind: u8, pace: Pace) -> Self {
        match kind & 3 {
            0 | 1 => Self::disk(kind, pace),
            2 => Self::network(kind),
            _ => Self {
                device: Box::new(Rng::new()),
                link: None,
                is_disk: false,
            },
        }
    }

    /// A disk of 64 KiB, all zeros.
    fn disk(kind: u8, pace: Pace) -> Self {
        let disk = IMAGE.with(|image| {
            let image = image.get_or_init(Image::new);
            image.clear();
            image.disks[usize::from(kind >> 6 & 1)].clone()
        });
        let options = BlkOptions {
            engine: match (pace, kind >> 4 & 3) {
                (Pace::Threads, 0) => EngineKind::IoUring,
                (Pace::Threads, 1) => EngineKind::Threads,
                _ => EngineKind::Sync,
            },
            queues: 1 + u16::from(kind >> 3 & 1),
            ..BlkOptions::new("disk0")
        };
        Self {
            device: Box::new(Blk::new(disk, options)),
            link: None,
            is_disk: true,
        }
    }

    fn network(kind: u8) -> Self {
        let (tap, link) = LINK.with(|link| {
            let (tap, far) = link.get_or_init(|| {
                let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
                far.set_nonblocking(true).expect("a socket");
                (Arc::new(Tap::from_socket(near, TapOffloads::NONE)), far)
            });
            (tap.clone(), far.try_clone().expect("a descriptor"))
        });
        let options = NetOptions {
            name: "net0".to_owned(),
            mac: MacAddress::derive("fuzz"),
            mtu: (kind & 0x40 != 0).then_some(1000),
        };
        Self {
            device: Box::new(Net::new(tap.clone(), options).expect("an interface")),
            link: Some(link),
            is_disk: false,
        }
    }
}

impl Image {
    fn new() -> Self {
        // SAFETY: the name is a string that ends in a zero.
        let descriptor = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(descriptor >= 0, "no memfd");
        // SAFETY: the descriptor was just made, and is nobody else's.
        let file = unsafe { File::from_raw_fd(descriptor) };
        file.set_len(IMAGE_BYTES as u64).expect("room");
        let disks = [false, true].map(|readonly| {
            Disk::open(&DiskOptions {
                cache: CacheMode::Unsafe,
                readonly,
                lock: false,
                ..DiskOptions::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
            })
            .expect("a disk")
        });
        Self { file, disks }
    }

    fn clear(&self) {
        let zeros = [0; IMAGE_BYTES];
        self.file.write_all_at(&zeros, 0).expect("room");
    }
}
