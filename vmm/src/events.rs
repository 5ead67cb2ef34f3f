//! The one queue into which everything that concerns the whole machine goes, and its senders.
//!
//! A sender never waits for the driver. A guest can put at most one entry per vCPU there, as a vCPU
//! stands from the moment its guest's end is reported, a disk one for each time that it is started, and a
//! slot one for each time that its device is asked for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::lifecycle::{Event, GuestEnd, StopReason};
use crate::metrics::{Counters, Metrics};

/// What the driver is asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An event in the machine's life.
    Lifecycle(Event),
    /// The end of the guest of one incarnation of the machine; it concerns no later one.
    GuestEnd {
        /// Which incarnation.
        incarnation: u64,
        /// How it ended.
        end: GuestEnd,
    },
    /// There are jobs for the hot-plug slots.
    Hotplug,
    /// The guest of one incarnation gives up the device in a slot, which it was asked for.
    SlotReleased {
        /// Which incarnation.
        incarnation: u64,
        /// Index of the slot.
        slot: usize,
    },
    /// The power button is pressed.
    PowerButton,
    /// The host failed a request of a disk, which is kept until the machine has been paused and resumed; it
    /// concerns no later incarnation.
    DiskError {
        /// Which incarnation.
        incarnation: u64,
        /// The disk's device.
        disk: String,
    },
}

/// The queue.
#[derive(Debug)]
pub struct EventQueue {
    requests: Mutex<VecDeque<Request>>,
    wake: EventFd,
}

impl EventQueue {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// The host's, when it gives no event.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requests: Mutex::new(VecDeque::new()),
            wake: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Puts `request` at its place: a stop before everything else.
    pub fn push(&self, request: Request) {
        let mut requests = self.lock();
        match request {
            Request::Lifecycle(Event::Stop(_)) => requests.push_front(request),
            other => requests.push_back(other),
        }
        drop(requests);
        // It fails only when the count is at its limit, and then the driver is awake anyway.
        let _ = self.wake.write(1);
    }

    /// Takes the first request.
    pub fn pop(&self) -> Option<Request> {
        self.lock().pop_front()
    }

    /// Forgets that something came. Called before the queue is emptied.
    pub fn acknowledge(&self) {
        // Nothing to read is no mistake: several requests are one wake-up.
        let _ = self.wake.read();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle by which any thread steers the machine. Nothing here waits for the machine to follow.
#[derive(Debug, Clone)]
pub struct Control {
    queue: Arc<EventQueue>,
    counters: Arc<Counters>,
}

impl Control {
    pub(crate) const fn new(queue: Arc<EventQueue>, counters: Arc<Counters>) -> Self {
        Self { queue, counters }
    }

    /// What the machine has counted so far; after its end, all that it counted.
    pub fn metrics(&self) -> Metrics {
        self.counters.snapshot()
    }

    /// Presses the power button: a guest that listens to ACPI shuts itself down.
    pub fn power_button(&self) {
        self.queue.push(Request::PowerButton);
    }

    /// Ends the machine, whatever its guest does.
    pub fn stop(&self, reason: StopReason) {
        self.lifecycle(Event::Stop(reason));
    }

    /// Brings all vCPUs to an instruction boundary.
    pub fn pause(&self) {
        self.lifecycle(Event::Pause);
    }

    /// Lets a paused machine go on.
    pub fn resume(&self) {
        self.lifecycle(Event::Resume);
    }

    /// Resets the machine: it starts from its kernel again.
    pub fn reset(&self) {
        self.lifecycle(Event::Reset);
    }

    pub(crate) fn start(&self) {
        self.lifecycle(Event::Start);
    }

    fn lifecycle(&self, event: Event) {
        self.queue.push(Request::Lifecycle(event));
    }
}

/// Readable when something is in the queue.
impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the event is open for as long as self lives.
        unsafe { BorrowedFd::borrow_raw(self.wake.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_overtakes_and_the_rest_keeps_its_order() {
        let queue = EventQueue::new().unwrap();
        let stop = Request::Lifecycle(Event::Stop(StopReason::User));
        queue.push(Request::PowerButton);
        queue.push(Request::Lifecycle(Event::Pause));
        queue.push(stop.clone());
        assert_eq!(queue.pop(), Some(stop));
        assert_eq!(queue.pop(), Some(Request::PowerButton));
        assert_eq!(queue.pop(), Some(Request::Lifecycle(Event::Pause)));
        assert_eq!(queue.pop(), None);
    }
}
