//! What a vsock device does on its thread: the three queues, and the streams of the host between them.
//!
//! Packets of the guest are taken until a bound of refusals waits for the guest's buffers. Packets for the
//! guest are made when there is a buffer for them, straight from the streams: nothing is read from the host
//! before there is a place for it.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use crate::Interrupt;
use crate::queue::{DescriptorChain, Queue, QueueError};
use crate::worker::{Fault, OwnEvents, Turn, WorkerTask, notify, serve};

use super::backend::{Backend, HEADER_LENGTH};

/// Indices of the queues (virtio 1.3, 5.10.2).
pub(super) const RECEIVE: u16 = 0;
pub(super) const TRANSMIT: u16 = 1;
pub(super) const EVENT: u16 = 2;

const LISTENER_TOKEN: u32 = 0;
const TIMER_TOKEN: u32 = 1;

/// Packets of one turn in either direction, after which the other one has its turn.
const PACKETS_PER_TURN: u16 = 64;
/// `VIRTIO_VSOCK_EVENT_TRANSPORT_RESET` (5.10.6.7), as `struct virtio_vsock_event`.
const TRANSPORT_RESET: [u8; 4] = [0; 4];
/// What the deadlines of connections are counted in.
const TICK: Duration = Duration::from_secs(1);

/// One started vsock device.
#[derive(Debug)]
pub(super) struct VsockTask {
    backend: Backend,
    queues: [Queue; 3],
    receive_chain: DescriptorChain,
    transmit_chain: DescriptorChain,
    interrupt: Arc<dyn Interrupt>,
    timer: TimerFd,
    timer_runs: bool,
    /// The guest's packets wait for room for refusals.
    is_stalled: bool,
    /// The driver is to hear that its connections are no more.
    lost_connections: bool,
}

impl VsockTask {
    pub(super) fn new(
        backend: Backend,
        queues: [Queue; 3],
        timer: TimerFd,
        interrupt: Arc<dyn Interrupt>,
        lost_connections: bool,
    ) -> Self {
        let [receive, transmit, _] = &queues;
        Self {
            receive_chain: DescriptorChain::new(receive),
            transmit_chain: DescriptorChain::new(transmit),
            timer,
            timer_runs: false,
            is_stalled: false,
            backend,
            queues,
            interrupt,
            lost_connections,
        }
    }

    /// What outlives a stop: the connections, the queues, and whether the driver has still to hear of a loss.
    pub(super) fn into_parts(self) -> (Backend, Vec<Queue>, bool) {
        (self.backend, self.queues.into(), self.lost_connections)
    }

    fn take_packets(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<Turn, Fault> {
        let room = self.backend.connections.refusal_room();
        let budget = PACKETS_PER_TURN.min(u16::try_from(room).unwrap_or(u16::MAX));
        self.is_stalled = budget == 0;
        if self.is_stalled {
            return Ok(Turn::Wait);
        }
        let [_, transmit, _] = &mut self.queues;
        let backend = &mut self.backend;
        serve(
            TRANSMIT,
            transmit,
            &mut self.transmit_chain,
            &*self.interrupt,
            budget,
            |chain| backend.take_packet(chain, events).map(|()| 0),
        )
    }

    /// Fills the guest's buffers with what there is for it.
    fn fill_buffers(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let [receive, ..] = &mut self.queues;
        if !receive.ready() || !self.backend.connections.has_turns() {
            return Ok(());
        }
        let broken = |source| fault(RECEIVE, source);
        let chain = &mut self.receive_chain;
        let mut is_more = true;
        receive.disable_notification().map_err(broken)?;
        for _ in 0..PACKETS_PER_TURN {
            if !self.backend.connections.has_turns() {
                is_more = false;
                break;
            }
            if !receive.pop(chain).map_err(broken)? {
                if receive.enable_notification().map_err(broken)? {
                    receive.disable_notification().map_err(broken)?;
                    continue;
                }
                is_more = false;
                break;
            }
            let buffers = chain.writable();
            let filled = match buffers.len() < HEADER_LENGTH {
                // The guest gets it back, of no use as it is.
                true => Some(0),
                false => self.backend.fill(buffers, events)?,
            };
            let Some(bytes) = filled else {
                receive.undo_pop(chain.head());
                is_more = false;
                break;
            };
            receive.stage_used(chain.head(), bytes).map_err(broken)?;
        }
        receive.publish_used().map_err(broken)?;
        notify(RECEIVE, receive, &*self.interrupt)?;
        if is_more {
            events.again(usize::from(RECEIVE));
        }
        if self.is_stalled && self.backend.connections.refusal_room() > 0 {
            events.again(usize::from(TRANSMIT));
        }
        Ok(())
    }

    /// Tells the driver that its connections are no more, once it gives a buffer for it (5.10.6.7).
    fn tell_of_loss(&mut self) -> Result<(), Fault> {
        let [.., event] = &mut self.queues;
        let broken = |source| fault(EVENT, source);
        if !self.lost_connections || !event.ready() {
            return Ok(());
        }
        let mut chain = DescriptorChain::new(event);
        if !event.pop(&mut chain).map_err(broken)? {
            return Ok(());
        }
        let written = chain.writable().copy_from(&TRANSPORT_RESET);
        let written = u32::try_from(written).unwrap_or(0);
        event.add_used(chain.head(), written).map_err(broken)?;
        self.lost_connections = false;
        notify(EVENT, event, &*self.interrupt)
    }

    /// What follows from anything that happened.
    fn settle(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        self.fill_buffers(events)?;
        if self.backend.should_accept() {
            self.backend.accept(events);
        }
        if self.backend.is_timed && !self.timer_runs {
            self.timer.reset(TICK, Some(TICK)).map_err(timer_fault)?;
            self.timer_runs = true;
        }
        Ok(())
    }

    fn tick(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        self.timer.wait().map_err(timer_fault)?;
        if !self.backend.tick(events)? {
            self.timer.clear().map_err(timer_fault)?;
            self.timer_runs = false;
        }
        Ok(())
    }
}

impl WorkerTask for VsockTask {
    fn begin(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let listener = self.backend.listener();
        events.add(listener, LISTENER_TOKEN, edge)?;
        events.add(self.timer.as_raw_fd(), TIMER_TOKEN, EventSet::IN)?;
        self.backend.begin(events)?;
        self.settle(events)
    }

    fn doorbell(
        &mut self,
        queue_index: usize,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        let turn = if queue_index == usize::from(TRANSMIT) {
            self.take_packets(events)?
        } else {
            if queue_index == usize::from(EVENT) {
                self.tell_of_loss()?;
            }
            Turn::Wait
        };
        self.settle(events)?;
        Ok(turn)
    }

    fn ready(
        &mut self,
        token: u32,
        ready: EventSet,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        match token {
            LISTENER_TOKEN => self.backend.accept(events),
            TIMER_TOKEN => self.tick(events)?,
            stream => self.backend.stream_ready(stream, ready, events)?,
        }
        self.settle(events)
    }
}

fn fault(queue_index: u16, source: QueueError) -> Fault {
    Fault::Queue {
        index: usize::from(queue_index),
        source,
    }
}

fn timer_fault(error: vmm_sys_util::errno::Error) -> Fault {
    Fault::Host {
        what: "set a timer",
        source: error.into(),
    }
}
