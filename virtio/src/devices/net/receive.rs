//! From the tap to the driver (virtio 1.3, 5.1.6.3 and 5.1.6.4): the kernel writes a frame where the
//! driver wants it; the header comes to the host first, is checked and then copied.
//!
//! A frame of which one cannot know that the driver's mergeable buffers hold it goes through a buffer
//! of the host, and waits there until the driver adds more: meanwhile the tap is not read, and its
//! own queue is what fills up. Owned by the device's worker.

use std::io;
use std::sync::Arc;

use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use crate::queue::{DescriptorChain, Queue, QueueError};
use crate::tap::{HEADER_BYTES, IoVectorStorage, IoVectors, Tap};
use crate::{GuestMemory, Interrupt};

use super::counters::NetCounters;
use super::header::{FrameError, FrameHeader, MAX_FRAME_BYTES};
use super::offload::bit;
use super::stage::Stage;

/// Index of the receive queue (5.1.2).
pub(super) const QUEUE_INDEX: u16 = 0;
/// Frames of one turn, after which the transmit queue and a stop have theirs.
const FRAMES_PER_TURN: usize = 64;
/// Room in the driver's buffers with which no frame is too long.
const ENOUGH_BYTES: usize = MAX_FRAME_BYTES.saturating_add(HEADER_BYTES);

/// What has to happen before the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The tap has a frame (and perhaps has one already).
    Readable,
    /// The driver adds buffers.
    Doorbell,
    /// Nothing will: the driver does not use the queue, or the tap is gone.
    Never,
}

/// The receive queue at work.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: Queue,
    chain: DescriptorChain,
    stage: Stage,
    vectors: IoVectorStorage,
    features: u64,
    mtu_bytes: Option<u16>,
    mergeable: bool,
    /// Where a frame waits that was read without enough room in the driver's buffers.
    parking: Box<[u8]>,
    parked: Option<Parked>,
    counters: Arc<NetCounters>,
}

#[derive(Debug, Clone, Copy)]
struct Parked {
    header: FrameHeader,
    frame_bytes: usize,
}

/// Why the queue is of no more use.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// The driver broke a rule of the ring.
    Queue(QueueError),
    /// The host cannot read the tap.
    Tap(io::Error),
}

impl From<QueueError> for ReceiveError {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

/// What a turn does after one step.
enum Step {
    Go,
    End(Next),
}

impl Receiver {
    pub(super) fn new(
        queue: Queue,
        features: u64,
        mtu_bytes: Option<u16>,
        memory: Arc<GuestMemory>,
        counters: Arc<NetCounters>,
    ) -> Self {
        Self {
            chain: DescriptorChain::new(&queue),
            stage: Stage::new(queue.size(), memory),
            queue,
            vectors: IoVectorStorage::new(),
            features,
            mtu_bytes,
            mergeable: features & bit(VIRTIO_NET_F_MRG_RXBUF) != 0,
            // Zeroed memory that nobody touched costs no page: most drivers never need it.
            parking: vec![0; MAX_FRAME_BYTES].into_boxed_slice(),
            parked: None,
            counters,
        }
    }

    /// Takes frames from the tap, up to the bound of a turn.
    pub(super) fn turn(
        &mut self,
        name: &str,
        tap: &Tap,
        interrupt: &dyn Interrupt,
    ) -> Result<Next, ReceiveError> {
        if !self.queue.ready() {
            return Ok(Next::Never);
        }
        self.queue.disable_notification()?;
        let mut next = Next::Readable;
        for _ in 0..FRAMES_PER_TURN {
            if let Step::End(end) = self.step(name, tap)? {
                next = end;
                break;
            }
        }
        if self.queue.needs_notification()? {
            interrupt.signal_used(QUEUE_INDEX);
        }
        Ok(next)
    }

    /// Gives the queue back, with the chains that no frame has used.
    pub(super) fn into_queue(mut self) -> Queue {
        self.stage.put_back(&mut self.queue);
        if self.parked.is_some() {
            self.counters.received.dropped();
        }
        self.queue
    }

    fn step(&mut self, name: &str, tap: &Tap) -> Result<Step, ReceiveError> {
        self.fill_stage()?;
        if self.stage.len() > 0 && self.stage.front_bytes() < HEADER_BYTES {
            // Not even the header fits (5.1.6.3.1): of no use to anyone, so it goes back as it came.
            return self.give_back_front();
        }
        if let Some(parked) = self.parked {
            return self.deliver_parked(name, parked);
        }
        if self.stage.len() == 0 {
            return self.wait_for_buffers();
        }
        if !self.mergeable || self.stage.bytes() >= ENOUGH_BYTES {
            self.read_in_place(name, tap)
        } else {
            self.read_and_park(name, tap)
        }
    }

    /// Takes chains from the ring until a frame of any length has room: one, or enough mergeable ones.
    fn fill_stage(&mut self) -> Result<(), ReceiveError> {
        loop {
            let enough = if self.mergeable {
                self.stage.bytes() >= ENOUGH_BYTES
            } else {
                self.stage.len() > 0
            };
            // A ring cannot have more chains than descriptors; a driver that says so repeats some.
            if enough || self.stage_is_full() || !self.queue.pop(&mut self.chain)? {
                return Ok(());
            }
            if self.stage.push(&self.chain) {
                continue;
            }
            if self.stage.len() > 0 {
                self.queue.undo_pop(self.chain.head());
                return Ok(());
            }
            // It has more pieces than the kernel takes.
            self.queue.add_used(self.chain.head(), 0)?;
        }
    }

    fn stage_is_full(&self) -> bool {
        self.stage.len() >= usize::from(self.queue.size())
    }

    fn give_back_front(&mut self) -> Result<Step, ReceiveError> {
        if let Some(head) = self.stage.pop() {
            self.queue.add_used(head, 0)?;
        }
        Ok(Step::Go)
    }

    fn wait_for_buffers(&mut self) -> Result<Step, ReceiveError> {
        if self.queue.enable_notification()? {
            self.queue.disable_notification()?;
            return Ok(Step::Go);
        }
        Ok(Step::End(Next::Doorbell))
    }

    fn read_in_place(&mut self, name: &str, tap: &Tap) -> Result<Step, ReceiveError> {
        let room = if self.mergeable {
            self.stage.bytes()
        } else {
            self.stage.front_bytes()
        };
        let mut header = [0; HEADER_BYTES];
        let mut overflow = [0; 1];
        let read = {
            let mut vectors = IoVectors::new(&mut self.vectors);
            let pushed = vectors
                .push_bytes(&mut header)
                .and_then(|()| self.stage.push_to(&mut vectors, self.mergeable))
                .and_then(|()| vectors.push_bytes(&mut overflow));
            match pushed {
                Ok(()) => read_frame(tap, &vectors),
                // The stage holds fewer pieces than that.
                Err(_) => return self.give_back_front(),
            }
        };
        let (header, frame_bytes) = match self.check(name, header, read)? {
            Checked::Frame {
                header,
                frame_bytes,
            } => (header, frame_bytes),
            Checked::Nothing(step) => return Ok(step),
        };
        let total = frame_bytes.saturating_add(HEADER_BYTES);
        if total > room {
            self.drop_frame(name, &FrameError::NoFit);
            return Ok(Step::Go);
        }
        self.publish(header, frame_bytes)?;
        Ok(Step::Go)
    }

    fn read_and_park(&mut self, name: &str, tap: &Tap) -> Result<Step, ReceiveError> {
        let mut header = [0; HEADER_BYTES];
        let mut overflow = [0; 1];
        let read = {
            let mut vectors = IoVectors::new(&mut self.vectors);
            let pushed = vectors
                .push_bytes(&mut header)
                .and_then(|()| vectors.push_bytes(&mut self.parking))
                .and_then(|()| vectors.push_bytes(&mut overflow));
            match pushed {
                Ok(()) => read_frame(tap, &vectors),
                Err(_) => return Ok(Step::End(Next::Never)),
            }
        };
        match self.check(name, header, read)? {
            Checked::Frame { frame_bytes, .. } if frame_bytes > self.parking.len() => {
                self.drop_frame(name, &FrameError::TooLong);
                Ok(Step::Go)
            }
            Checked::Frame {
                header,
                frame_bytes,
            } => {
                let parked = Parked {
                    header,
                    frame_bytes,
                };
                self.parked = Some(parked);
                self.deliver_parked(name, parked)
            }
            Checked::Nothing(step) => Ok(step),
        }
    }

    fn deliver_parked(&mut self, name: &str, parked: Parked) -> Result<Step, ReceiveError> {
        let total = parked.frame_bytes.saturating_add(HEADER_BYTES);
        if total > self.stage.bytes() {
            if !self.stage_is_full() {
                return self.wait_for_buffers();
            }
            // All that the driver can ever offer is here.
            self.parked = None;
            self.drop_frame(name, &FrameError::NoFit);
            return Ok(Step::Go);
        }
        self.parked = None;
        let frame = self.parking.get(..parked.frame_bytes).unwrap_or_default();
        self.stage.write(HEADER_BYTES, frame);
        self.publish(parked.header, parked.frame_bytes)?;
        Ok(Step::Go)
    }

    /// Writes the header before the frame, and gives the buffers of both to the driver at once.
    fn publish(&mut self, header: FrameHeader, frame_bytes: usize) -> Result<(), ReceiveError> {
        let total = frame_bytes.saturating_add(HEADER_BYTES);
        let count = self.stage.chains_for(total).unwrap_or(0);
        // 1 where buffers are not merged (5.1.6.4.1).
        let buffer_count = u16::try_from(count).unwrap_or(u16::MAX);
        self.stage.write(
            0,
            &FrameHeader {
                buffer_count,
                ..header
            }
            .to_bytes(),
        );
        self.stage.use_up(total, &mut self.queue)?;
        self.queue.publish_used()?;
        self.counters.received.passed(frame_bytes);
        Ok(())
    }

    fn check(
        &mut self,
        name: &str,
        header: [u8; HEADER_BYTES],
        read: io::Result<usize>,
    ) -> Result<Checked, ReceiveError> {
        let frame_bytes = match read {
            Ok(bytes) => bytes.saturating_sub(HEADER_BYTES),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Checked::Nothing(Step::End(Next::Readable)));
            }
            // The interface was deleted; epoll says so too, and the task sees to it.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => {
                return Ok(Checked::Nothing(Step::End(Next::Never)));
            }
            Err(error) => return Err(ReceiveError::Tap(error)),
        };
        match FrameHeader::from_bytes(header).for_driver(self.features, frame_bytes, self.mtu_bytes)
        {
            Ok(header) => Ok(Checked::Frame {
                header,
                frame_bytes,
            }),
            Err(error) => {
                self.drop_frame(name, &error);
                Ok(Checked::Nothing(Step::Go))
            }
        }
    }

    /// Counts a frame that the driver does not get, and says why of the first.
    fn drop_frame(&self, name: &str, error: &FrameError) {
        if self.counters.received.dropped() {
            tracing::warn!(
                device = name,
                "receive: dropped: {error}; later ones are only counted"
            );
        }
    }
}

enum Checked {
    Frame {
        header: FrameHeader,
        frame_bytes: usize,
    },
    Nothing(Step),
}

fn read_frame(tap: &Tap, vectors: &IoVectors<'_, '_>) -> io::Result<usize> {
    loop {
        match tap.read_frame(vectors) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
