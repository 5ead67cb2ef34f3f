//! What a block device is made with.

use std::fmt::Debug;
use std::sync::Arc;

use block::{EngineKind, RateLimit};

use super::Serial;

/// What a disk is called, and how its requests are served.
#[derive(Debug, Clone)]
pub struct BlkOptions {
    /// In the log, and as a thread.
    pub name: String,
    /// What the guest reads as the disk's serial number.
    pub serial: Serial,
    /// Queues, each with a thread and an engine of its own once the driver uses it: 1 to
    /// [`QUEUES_MAX`](super::QUEUES_MAX).
    pub queues: u16,
    /// Who carries requests out.
    pub engine: EngineKind,
    /// What all queues together may transfer.
    pub rate_limit: RateLimit,
    /// What becomes of a request that the host fails.
    pub on_error: OnError,
    /// Guest memory is there whatever happens, so that the kernel may hold its pages for transfers past the
    /// page cache.
    pub hold_memory: bool,
}

impl BlkOptions {
    /// One queue, without limits, by the default engine.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            serial: Serial::default(),
            queues: 1,
            engine: EngineKind::default(),
            rate_limit: RateLimit::default(),
            on_error: OnError::default(),
            hold_memory: false,
        }
    }
}

/// What becomes of a request that the host fails.
#[derive(Debug, Clone, Default)]
pub enum OnError {
    /// It is an I/O error of the guest.
    #[default]
    Report,
    /// The guest is told that it succeeded.
    Ignore,
    /// It is kept, and tried again when the device is started again; the listener is told, once for each
    /// start, and stops the machine.
    Stop(Arc<dyn ErrorListener>),
}

/// Who hears of a request that waits for the machine to be stopped.
pub trait ErrorListener: Debug + Send + Sync {
    /// Called on a thread of the device, without locks; does not wait for the device.
    fn request_failed(&self, device: &str);
}
