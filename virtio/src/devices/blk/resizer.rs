//! Growing a disk while a guest uses it (virtio 1.3, 5.2.5: `capacity`, 2.5: configuration change).

use std::sync::{Arc, Mutex, PoisonError};

use block::{Disk, ResizeError};

use crate::Interrupt;

/// Makes the disk of a device larger and tells the driver. Any thread may have one.
#[derive(Debug, Clone)]
pub struct Resizer {
    disk: Disk,
    driver: Arc<DriverLine>,
}

/// The way to a driver that may be there or not.
#[derive(Debug, Default)]
pub(super) struct DriverLine {
    state: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    interrupt: Option<Arc<dyn Interrupt>>,
    /// Something has changed that could not be said yet.
    unsaid: bool,
}

impl Resizer {
    pub(super) fn new(disk: Disk, driver: Arc<DriverLine>) -> Self {
        Self { disk, driver }
    }

    /// Makes the disk `size_bytes` large, and tells the driver: now, or when it is there again.
    ///
    /// # Errors
    ///
    /// As for [`Disk::grow`].
    pub fn grow(&self, size_bytes: u64) -> Result<(), ResizeError> {
        self.disk.grow(size_bytes)?;
        self.driver.change();
        Ok(())
    }
}

impl DriverLine {
    /// The device has been started.
    pub(super) fn connect(&self, interrupt: Arc<dyn Interrupt>) {
        let mut line = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut line.unsaid) {
            interrupt.signal_config_change();
        }
        line.interrupt = Some(interrupt);
    }

    /// The device has been stopped.
    pub(super) fn disconnect(&self) {
        let mut line = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        line.interrupt = None;
    }

    fn change(&self) {
        let mut line = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &line.interrupt {
            Some(interrupt) => interrupt.signal_config_change(),
            None => line.unsaid = true,
        }
    }
}
