//! What a network device does on its thread: the two queues, and the tap between them.
//!
//! Level-triggered: the tap is waited for only as long as something can be done with it, so that
//! neither a driver without buffers nor a tap without room keeps the thread busy.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm_sys_util::epoll::EventSet;

use crate::Interrupt;
use crate::queue::{Queue, QueueError};
use crate::tap::Tap;
use crate::worker::{Fault, OwnEvents, Turn, WorkerTask};

use super::receive::{self, ReceiveError, Receiver};
use super::transmit::{self, Transmitter};

/// The one file descriptor that the device waits for.
const TAP_TOKEN: u32 = 0;

/// One started network device.
#[derive(Debug)]
pub(super) struct NetTask {
    pub(super) name: String,
    pub(super) tap: Arc<Tap>,
    pub(super) receiver: Receiver,
    pub(super) transmitter: Transmitter,
    pub(super) interrupt: Arc<dyn Interrupt>,
    pub(super) link_up: Arc<AtomicBool>,
    pub(super) wait: Wait,
}

/// What each queue waits for, and what epoll was told of it.
#[derive(Debug)]
pub(super) struct Wait {
    receive: receive::Next,
    transmit: transmit::Next,
    /// Events of the tap that are waited for; `None` when it is not registered.
    registered: Option<EventSet>,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            receive: receive::Next::Doorbell,
            transmit: transmit::Next::Doorbell,
            registered: None,
        }
    }
}

impl NetTask {
    /// Both queues, receive first.
    pub(super) fn into_queues(self) -> Vec<Queue> {
        vec![self.receiver.into_queue(), self.transmitter.queue]
    }

    fn receive(&mut self) -> Result<(), Fault> {
        let turn = self.receiver.turn(&self.name, &self.tap, &*self.interrupt);
        self.wait.receive = turn.map_err(|error| match error {
            ReceiveError::Queue(error) => fault(receive::QUEUE_INDEX, error),
            ReceiveError::Tap(source) => Fault::Host {
                what: "read the tap",
                source,
            },
        })?;
        Ok(())
    }

    fn transmit(&mut self) -> Result<(), Fault> {
        let turn = self
            .transmitter
            .turn(&self.name, &self.tap, &*self.interrupt);
        self.wait.transmit = turn.map_err(|error| fault(transmit::QUEUE_INDEX, error))?;
        Ok(())
    }

    /// Tells epoll what is waited for, when that has changed.
    fn update_wait(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let Some(registered) = self.wait.registered else {
            return Ok(());
        };
        let mut wanted = EventSet::empty();
        if self.wait.receive == receive::Next::Readable {
            wanted |= EventSet::IN;
        }
        if self.wait.transmit == transmit::Next::Writable {
            wanted |= EventSet::OUT;
        }
        if wanted != registered {
            events.modify(self.tap.as_raw_fd(), TAP_TOKEN, wanted)?;
            self.wait.registered = Some(wanted);
        }
        Ok(())
    }

    /// The interface was deleted under the device, which errors say for ever: the link goes down, and
    /// what the driver sends is dropped.
    fn lose_tap(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        if self.wait.registered.take().is_some() {
            events.remove(self.tap.as_raw_fd())?;
        }
        // Once, however often the driver starts over.
        if self.link_up.swap(false, Ordering::AcqRel) {
            tracing::error!(
                device = %self.name,
                tap = self.tap.name(),
                "the tap is gone: the link is down until the machine is started again"
            );
            self.interrupt.signal_config_change();
        }
        if self.wait.transmit == transmit::Next::Writable {
            self.transmit()?;
        }
        Ok(())
    }
}

impl WorkerTask for NetTask {
    fn begin(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        events.add(self.tap.as_raw_fd(), TAP_TOKEN, EventSet::empty())?;
        self.wait.registered = Some(EventSet::empty());
        Ok(())
    }

    fn doorbell(
        &mut self,
        queue_index: usize,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        if queue_index == usize::from(receive::QUEUE_INDEX) {
            // More buffers are news only when there were none.
            if self.wait.receive == receive::Next::Doorbell {
                self.receive()?;
            }
        } else if self.wait.transmit != transmit::Next::Writable {
            self.transmit()?;
        }
        self.update_wait(events)?;
        let again = queue_index == usize::from(transmit::QUEUE_INDEX)
            && self.wait.transmit == transmit::Next::Again;
        Ok(if again { Turn::Again } else { Turn::Wait })
    }

    fn ready(
        &mut self,
        _token: u32,
        ready: EventSet,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        if ready.intersects(EventSet::ERROR | EventSet::HANG_UP) {
            return self.lose_tap(events);
        }
        if ready.contains(EventSet::IN) && self.wait.receive == receive::Next::Readable {
            self.receive()?;
        }
        if ready.contains(EventSet::OUT) && self.wait.transmit == transmit::Next::Writable {
            self.transmit()?;
            if self.wait.transmit == transmit::Next::Again {
                // The tap still has room, and says so again at once.
                self.wait.transmit = transmit::Next::Writable;
            }
        }
        self.update_wait(events)
    }
}

fn fault(queue_index: u16, source: QueueError) -> Fault {
    Fault::Queue {
        index: usize::from(queue_index),
        source,
    }
}
