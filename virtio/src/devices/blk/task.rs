//! One queue of a disk, on a thread of its own.
//!
//! In a turn the thread takes what the driver made available, submits it to the queue's engine, hands it to
//! the host at once, and gives back what has completed, in the order in which it did. Where nothing is
//! left, it looks for more requests for a while, if that was worth it before (`polling`). What completes later
//! gives the queue another turn, by the engine's event. Each request keeps its chain until then; chains are
//! used again, so that a request allocates nothing.

use std::hint;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use block::{Completion, Engine, IoBuffer, IoError, Operation};
use virtio_bindings::bindings::virtio_blk as bindings;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::timerfd::TimerFd;

use super::options::OnError;
use super::polling::Polling;
use super::request::{Request, Status, parse, write_status};
use super::shared::Shared;
use super::{Serial, config, feature};
use crate::Interrupt;
use crate::queue::{Buffers, DescriptorChain, Queue, QueueError};
use crate::worker::{Fault, OwnEvents, Turn, WorkerTask, notify};

/// Tokens of the task's own events.
const COMPLETIONS: u32 = 0;
const TIMER: u32 = 1;

/// Requests that are taken before those that completed are looked at.
const REQUESTS_PER_ROUND: usize = 32;
/// A round ends after this time, so that what completed is not kept from the driver.
const ROUND_TIME: Duration = Duration::from_micros(100);
/// A turn ends after this time, so that a stop is seen.
const TURN_TIME: Duration = Duration::from_millis(5);
/// No further request is taken while as much is under way: a stop waits for all of it.
const BYTES_IN_FLIGHT_MAX: u64 = 32 << 20;

/// What the thread of a queue has.
#[derive(Debug)]
pub(super) struct Task {
    pub index: u16,
    pub queue: Queue,
    pub name: String,
    pub interrupt: Arc<dyn Interrupt>,
    pub engine: Engine,
    /// Negotiated ones.
    pub features: u64,
    pub serial: Serial,
    pub on_error: OnError,
    pub shared: Arc<Shared>,
    /// There where the disk has a rate limit.
    pub timer: Option<TimerFd>,
    /// Requests that failed and are to be tried again at the next start.
    pub held: Vec<DescriptorChain>,
    pub requests: Requests,
    pub polling: Polling,
    /// The buffers of the request that is being submitted.
    pub buffers: Vec<IoBuffer>,
    /// Buffers were used that the driver does not see yet.
    pub untold: bool,
}

/// The requests under way, by the tag with which they were submitted.
#[derive(Debug)]
pub(super) struct Requests {
    slots: Vec<Option<Pending>>,
    free: Vec<usize>,
    spare_chains: Vec<DescriptorChain>,
    bytes: u64,
}

#[derive(Debug)]
struct Pending {
    chain: DescriptorChain,
    length_bytes: u64,
    step: Step,
}

/// What the engine was last asked to do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something that leaves nothing to be flushed.
    Plain,
    /// A change that a flush makes durable.
    VolatileWrite,
    /// A durable change; writes that came before it have to be flushed as well.
    WriteThenFlush,
    /// A flush, which began with so many writes.
    Flush { begun_at: u64 },
}

/// Why no further request is taken from the ring in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// There are as many as one round has.
    Round,
    /// There is none.
    Empty,
    /// As much is under way as may be; a completion gives the next turn.
    Full,
    /// The rate limit; the timer gives the next turn.
    Throttled,
}

impl Requests {
    /// Room for as many at a time as a queue of `size` has.
    pub(super) fn with_room(size: u16) -> Self {
        let size = usize::from(size);
        Self {
            slots: Vec::with_capacity(size),
            free: Vec::with_capacity(size),
            spare_chains: Vec::with_capacity(size),
            bytes: 0,
        }
    }

    fn insert(&mut self, pending: Pending) -> usize {
        self.bytes = self.bytes.saturating_add(pending.length_bytes);
        match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.slots.get_mut(index) {
                    *slot = Some(pending);
                }
                index
            }
            None => {
                self.slots.push(Some(pending));
                self.slots.len().saturating_sub(1)
            }
        }
    }

    fn take(&mut self, tag: u64) -> Option<Pending> {
        let index = usize::try_from(tag).ok()?;
        let pending = self.slots.get_mut(index)?.take()?;
        self.free.push(index);
        self.bytes = self.bytes.saturating_sub(pending.length_bytes);
        Some(pending)
    }

    fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }
}

impl WorkerTask for Task {
    fn begin(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        events.add(self.engine.event().as_raw_fd(), COMPLETIONS, edge)?;
        if let Some(timer) = &self.timer {
            events.add(timer.as_raw_fd(), TIMER, edge)?;
        }
        for chain in std::mem::take(&mut self.held) {
            self.submit(chain)?;
        }
        Ok(())
    }

    fn doorbell(
        &mut self,
        _queue_index: usize,
        _events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        self.turn()
    }

    fn ready(
        &mut self,
        _token: u32,
        _ready: EventSet,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        if self.turn()? == Turn::Again {
            events.again(0);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        // A flush can follow a write.
        while self.engine.in_flight() > 0 {
            self.engine.drain().map_err(ring_fault)?;
            self.give_back()?;
        }
        self.engine.release_memory();
        self.tell()
    }
}

impl Task {
    fn turn(&mut self) -> Result<Turn, Fault> {
        let started = Instant::now();
        self.queue
            .disable_notification()
            .map_err(|source| self.broken(source))?;
        loop {
            let pause = self.take_requests()?;
            self.engine.commit().map_err(ring_fault)?;
            self.give_back()?;
            self.tell()?;
            let now = Instant::now();
            if now.duration_since(started) >= TURN_TIME {
                return Ok(Turn::Again);
            }
            match pause {
                Pause::Round => continue,
                // Nobody announces what completes.
                _ if self.engine.is_polling() => {
                    hint::spin_loop();
                    continue;
                }
                // What the host has to do for a request may need this processor.
                Pause::Empty if self.engine.in_flight() == 0 && self.polling.goes_on(now) => {
                    hint::spin_loop();
                    continue;
                }
                Pause::Empty => {
                    let more = self.queue.enable_notification();
                    if more.map_err(|source| self.broken(source))? {
                        let silenced = self.queue.disable_notification();
                        silenced.map_err(|source| self.broken(source))?;
                        continue;
                    }
                }
                Pause::Full if !self.is_full() => continue,
                Pause::Full | Pause::Throttled => {}
            }
            // The event may not come for what completed meanwhile.
            if self.engine.prepare_wait().map_err(ring_fault)? {
                return Ok(Turn::Wait);
            }
            if pause == Pause::Empty {
                let silenced = self.queue.disable_notification();
                silenced.map_err(|source| self.broken(source))?;
            }
        }
    }

    /// Submits what the driver made available, as far as one round goes.
    fn take_requests(&mut self) -> Result<Pause, Fault> {
        let started = Instant::now();
        for taken in 0..REQUESTS_PER_ROUND {
            if self.is_full() {
                return Ok(Pause::Full);
            }
            // The first one is not worth a look at the clock.
            let now = if taken == 0 { started } else { Instant::now() };
            if now.duration_since(started) >= ROUND_TIME {
                return Ok(Pause::Round);
            }
            if self.must_wait(now) {
                return Ok(Pause::Throttled);
            }
            let mut chain = self
                .requests
                .spare_chains
                .pop()
                .unwrap_or_else(|| DescriptorChain::new(&self.queue));
            let popped = self.queue.pop(&mut chain);
            if !popped.map_err(|source| self.broken(source))? {
                self.requests.spare_chains.push(chain);
                return Ok(Pause::Empty);
            }
            self.polling.note_event();
            self.submit(chain)?;
        }
        Ok(Pause::Round)
    }

    /// Whether nothing more is taken before something has completed, or what is kept was tried again. A
    /// driver that keeps to the rules never has more requests under way than its queue has descriptors.
    fn is_full(&self) -> bool {
        let taken = self.requests.len().saturating_add(self.held.len());
        taken >= usize::from(self.queue.size()) || self.requests.bytes >= BYTES_IN_FLIGHT_MAX
    }

    /// Whether the rate limit forbids a request at `now`; the timer then says when it does not.
    fn must_wait(&mut self, now: Instant) -> bool {
        let (Some(limiter), Some(timer)) = (&self.shared.limiter, &mut self.timer) else {
            return false;
        };
        match limiter.admit(now) {
            Ok(()) => false,
            // Without a timer nobody would come back: the request goes.
            Err(wait) => timer.reset(wait, None).is_ok(),
        }
    }

    /// Answers the request in `chain`, or submits it to the engine.
    fn submit(&mut self, chain: DescriptorChain) -> Result<(), Fault> {
        let parsed = parse(&chain).map_err(|what| Fault::Request {
            index: usize::from(self.index),
            what,
        })?;
        let request = parsed.and_then(|request| self.check(request));
        let request = match request {
            Ok(request) => request,
            Err(status) => return self.answer(chain, status),
        };
        let length_bytes = match request {
            Request::Read { data, .. } | Request::Write { data, .. } => data.len(),
            Request::WriteZeroes(range) => range.length_bytes(),
            Request::GetId { data } => {
                data.copy_from(self.serial.bytes());
                return self.answer(chain, Status::Ok);
            }
            Request::Flush | Request::Discard(_) => 0,
        };
        if let Some(limiter) = &self.shared.limiter {
            limiter.charge(length_bytes);
        }
        let durable = !self.shared.writeback.load(Ordering::Relaxed);
        let step = match request {
            Request::Write { .. } | Request::WriteZeroes(_) if !durable => Step::VolatileWrite,
            // The driver has turned the cache off, and will flush no more what is in it.
            Request::Write { .. } | Request::WriteZeroes(_) if self.shared.has_unflushed() => {
                Step::WriteThenFlush
            }
            Request::Flush => Step::Flush {
                begun_at: self.shared.begin_flush(),
            },
            _ => Step::Plain,
        };
        match request {
            Request::Read { data, .. } | Request::Write { data, .. } => {
                collect(&mut self.buffers, data);
            }
            _ => self.buffers.clear(),
        }
        let buffers = &self.buffers;
        let operation = match request {
            Request::Read { sector, .. } => Operation::Read { sector, buffers },
            Request::Write { sector, .. } => Operation::Write {
                sector,
                buffers,
                durable,
            },
            Request::Discard(range) => Operation::Discard {
                sector: range.sector,
                length_bytes: range.length_bytes(),
            },
            Request::WriteZeroes(range) => Operation::WriteZeroes {
                sector: range.sector,
                length_bytes: range.length_bytes(),
                may_unmap: range.unmap,
                durable,
            },
            // An identity has been answered.
            Request::Flush | Request::GetId { .. } => Operation::Flush,
        };
        let index = self.requests.insert(Pending {
            chain,
            length_bytes,
            step,
        });
        self.engine
            .submit(u64::try_from(index).unwrap_or(u64::MAX), operation);
        Ok(())
    }

    /// Refuses what was not negotiated or is beyond the announced limits.
    fn check<'a>(&self, request: Request<'a>) -> Result<Request<'a>, Status> {
        let negotiated = |bit| self.features & feature(bit) != 0;
        match request {
            Request::Read { data, .. } | Request::Write { data, .. }
                if data.len() > config::REQUEST_MAX_BYTES =>
            {
                Err(Status::IoError)
            }
            Request::Discard(range)
                if !negotiated(bindings::VIRTIO_BLK_F_DISCARD) || range.unmap =>
            {
                Err(Status::Unsupported)
            }
            Request::Discard(range) if range.sectors > config::DISCARD_MAX_SECTORS => {
                Err(Status::IoError)
            }
            Request::WriteZeroes(_) if !negotiated(bindings::VIRTIO_BLK_F_WRITE_ZEROES) => {
                Err(Status::Unsupported)
            }
            Request::WriteZeroes(range) if range.sectors > config::WRITE_ZEROES_MAX_SECTORS => {
                Err(Status::IoError)
            }
            request => Ok(request),
        }
    }

    /// Gives back what has completed.
    fn give_back(&mut self) -> Result<(), Fault> {
        while let Some(Completion { tag, result }) = self.engine.next_completion() {
            let Some(mut pending) = self.requests.take(tag) else {
                continue;
            };
            self.polling.note_event();
            if result.is_ok() {
                match pending.step {
                    Step::Plain => {}
                    Step::VolatileWrite => self.shared.note_written(),
                    Step::WriteThenFlush => {
                        let begun_at = self.shared.begin_flush();
                        pending.step = Step::Flush { begun_at };
                        let index = self.requests.insert(pending);
                        let tag = u64::try_from(index).unwrap_or(u64::MAX);
                        self.engine.submit(tag, Operation::Flush);
                        continue;
                    }
                    Step::Flush { begun_at } => self.shared.note_flushed(begun_at),
                }
            }
            let status = match (result, &self.on_error) {
                (Ok(()), _) => Status::Ok,
                (Err(IoError::Unsupported), _) => Status::Unsupported,
                (Err(IoError::Host(_)), OnError::Ignore) => Status::Ok,
                // A flush is not tried again, nor anything once writes are lost: the host forgets what it
                // could not write, and would say that all is well.
                (Err(IoError::Host(_)), OnError::Stop(listener))
                    if !matches!(pending.step, Step::Flush { .. })
                        && !self.engine.has_lost_writes() =>
                {
                    self.held.push(pending.chain);
                    if !self.shared.stop_said.swap(true, Ordering::AcqRel) {
                        listener.request_failed(&self.name);
                    }
                    continue;
                }
                (Err(_), _) => Status::IoError,
            };
            self.answer(pending.chain, status)?;
        }
        Ok(())
    }

    /// Writes the status of a request and gives its chain back; the driver sees it with the others of the
    /// round.
    fn answer(&mut self, chain: DescriptorChain, status: Status) -> Result<(), Fault> {
        let written_bytes = write_status(&chain, status);
        let used = self.queue.stage_used(chain.head(), written_bytes);
        used.map_err(|source| self.broken(source))?;
        self.untold = true;
        self.requests.spare_chains.push(chain);
        Ok(())
    }

    /// Shows the driver what was used, and tells it.
    fn tell(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.untold) {
            let shown = self.queue.publish_used();
            shown.map_err(|source| self.broken(source))?;
            notify(self.index, &mut self.queue, &*self.interrupt)?;
        }
        Ok(())
    }

    fn broken(&self, source: QueueError) -> Fault {
        Fault::Queue {
            index: usize::from(self.index),
            source,
        }
    }
}

fn collect(buffers: &mut Vec<IoBuffer>, data: Buffers<'_>) {
    buffers.clear();
    buffers.extend(data.segments().map(|segment| {
        // SAFETY: the segment is guest memory, for which there are no Rust references. The chain keeps it
        // mapped, and is kept until the request has completed.
        unsafe { IoBuffer::new(segment.as_ptr(), segment.len()) }
    }));
}

fn ring_fault(source: std::io::Error) -> Fault {
    Fault::Host {
        what: "go on with the disk's requests",
        source,
    }
}

#[cfg(test)]
mod tests;
