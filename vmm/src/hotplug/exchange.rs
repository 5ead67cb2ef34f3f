//! The jobs that handles give to the machine's driver.
//!
//! A handle waits for the answer on a channel of its own. The driver's end of the exchange closes it, which
//! ends the waiting of all who have not been answered.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{DeviceId, HotplugError};
use crate::resources::{DiskHandle, LentDevice};

/// Somebody who waits for a device to be detached.
#[derive(Debug)]
pub struct Waiting {
    /// Which request this is.
    pub request: u64,
    /// Where the answer goes.
    pub reply: SyncSender<Result<(), HotplugError>>,
}

/// What the driver is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Put a device into a free slot.
    Attach {
        /// The device.
        device: LentDevice,
        /// Where the answer goes.
        reply: SyncSender<Result<DeviceId, HotplugError>>,
    },
    /// Give a handle on a disk.
    Disk {
        /// Which.
        id: DeviceId,
        /// Where the answer goes: nothing for a device that is no disk.
        reply: SyncSender<Result<Option<DiskHandle>, HotplugError>>,
    },
    /// Ask the guest for a device, and take it away.
    Detach {
        /// Which.
        id: DeviceId,
        /// Who waits for it.
        waiting: Waiting,
    },
    /// Answer a request for a detachment, if it has not been, and give it up.
    Withdraw {
        /// The device.
        id: DeviceId,
        /// The request.
        request: u64,
    },
}

/// Jobs that wait for the driver.
#[derive(Debug)]
pub struct Exchange {
    /// `None` when there is no driver any more.
    jobs: Mutex<Option<VecDeque<Job>>>,
    requests: AtomicU64,
}

impl Exchange {
    /// An exchange that takes jobs.
    pub fn new() -> Self {
        Self {
            jobs: Mutex::new(Some(VecDeque::new())),
            requests: AtomicU64::new(0),
        }
    }

    /// A number that no other request has.
    pub fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a job.
    ///
    /// # Errors
    ///
    /// [`HotplugError::Ended`] when nobody is left to do it.
    pub fn put(&self, job: Job) -> Result<(), HotplugError> {
        match &mut *self.lock() {
            Some(jobs) => {
                jobs.push_back(job);
                Ok(())
            }
            None => Err(HotplugError::Ended),
        }
    }

    /// Takes the first job.
    pub fn take(&self) -> Option<Job> {
        self.lock().as_mut()?.pop_front()
    }

    /// Takes no more jobs, and forgets those that are there.
    pub fn close(&self) {
        let jobs = self.lock().take();
        drop(jobs);
    }

    fn lock(&self) -> MutexGuard<'_, Option<VecDeque<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn whoever_waits_at_the_end_hears_of_it() {
        let exchange = Exchange::new();
        let (reply, answer) = sync_channel(1);
        let waiting = Waiting {
            request: exchange.next_request(),
            reply,
        };
        let id = DeviceId(1);
        exchange.put(Job::Detach { id, waiting }).unwrap();
        let request = exchange.next_request();
        assert_eq!(request, 1);
        exchange.put(Job::Withdraw { id, request }).unwrap();
        let first = exchange.take();
        assert!(matches!(first, Some(Job::Detach { .. })));
        exchange.put(first.unwrap()).unwrap();
        exchange.close();
        assert!(answer.recv().is_err());
        assert!(exchange.take().is_none());
        let late = exchange.put(Job::Withdraw { id, request });
        assert!(matches!(late, Err(HotplugError::Ended)));
    }
}
