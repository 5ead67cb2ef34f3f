//! A disk that the session keeps open while machines come and go.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use block::{Disk, ResizeError};
use virtio::devices::blk::{Blk, BlkOptions, ErrorListener, Resizer};

use crate::events::{EventQueue, Request};

/// The disk, and the way to the device that the machine of the moment has for it.
#[derive(Debug)]
pub struct LentDisk {
    disk: Disk,
    resizer: Arc<Mutex<Option<Resizer>>>,
}

impl LentDisk {
    pub(super) fn new(disk: Disk) -> Self {
        Self {
            disk,
            resizer: Arc::default(),
        }
    }

    /// The device for the next machine.
    pub(super) fn device(&self, options: BlkOptions) -> Blk {
        let device = Blk::new(self.disk.clone(), options);
        *lock(&self.resizer) = Some(device.resizer());
        device
    }

    pub(super) fn handle(&self) -> DiskHandle {
        DiskHandle {
            disk: self.disk.clone(),
            resizer: Arc::clone(&self.resizer),
        }
    }
}

/// A disk of a machine, from outside: any thread may have it, as long as it likes.
#[derive(Debug, Clone)]
pub struct DiskHandle {
    disk: Disk,
    resizer: Arc<Mutex<Option<Resizer>>>,
}

impl DiskHandle {
    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.disk.sectors().saturating_mul(block::SECTOR_BYTES)
    }

    /// Makes it `size_bytes` large, a multiple of 512, and tells the guest by a configuration change. A raw
    /// file grows with it, a block device has to have grown before. Disks do not become smaller.
    ///
    /// # Errors
    ///
    /// [`ResizeError`]; the size is then as before.
    pub fn grow(&self, size_bytes: u64) -> Result<(), ResizeError> {
        match &*lock(&self.resizer) {
            Some(resizer) => resizer.grow(size_bytes),
            None => self.disk.grow(size_bytes).map(drop),
        }
    }
}

/// Brings errors for which the machine is to be paused to its driver.
#[derive(Debug)]
pub(super) struct DiskErrors {
    pub(super) events: Arc<EventQueue>,
    /// Which incarnation of the machine has the disk: the next guest is not to be paused for what is gone
    /// with this one.
    pub(super) incarnation: u64,
}

impl ErrorListener for DiskErrors {
    fn request_failed(&self, device: &str) {
        self.events.push(Request::DiskError {
            incarnation: self.incarnation,
            disk: device.to_owned(),
        });
    }
}

fn lock(resizer: &Mutex<Option<Resizer>>) -> MutexGuard<'_, Option<Resizer>> {
    resizer.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_to_stop_the_machine_asks_the_driver() {
        let events = Arc::new(EventQueue::new().unwrap());
        let listener = DiskErrors {
            events: Arc::clone(&events),
            incarnation: 7,
        };
        listener.request_failed("disk1");
        let expected = Request::DiskError {
            incarnation: 7,
            disk: "disk1".to_owned(),
        };
        assert_eq!(events.pop(), Some(expected));
    }

    #[test]
    fn a_disk_grows_with_and_without_a_device() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        let disk = Disk::open(&block::DiskOptions::new(file.path())).unwrap();
        let lent = LentDisk::new(disk);
        let handle = lent.handle();
        handle.grow(8192).unwrap();
        let device = lent.device(BlkOptions::new("disk0"));
        handle.grow(1 << 20).unwrap();
        assert_eq!(handle.size_bytes(), 1 << 20);
        assert!(handle.grow(4096).is_err());
        assert_eq!(file.as_file().metadata().unwrap().len(), 1 << 20);
        drop(device);
    }
}
