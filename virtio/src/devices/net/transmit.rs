//! From the driver to the tap (virtio 1.3, 5.1.6.2): the chain's pieces go to the kernel where they
//! lie, behind a header that was checked. Owned by the device's worker.

use std::io;
use std::sync::Arc;

use crate::Interrupt;
use crate::queue::{DescriptorChain, Queue, QueueError};
use crate::tap::{HEADER_BYTES, IoVectorStorage, IoVectors, Tap};

use super::counters::NetCounters;
use super::header::{FrameError, FrameHeader};

/// Index of the transmit queue (5.1.2).
pub(super) const QUEUE_INDEX: u16 = 1;
/// Bytes before the frame in a chain.
const HEADER_LENGTH: u64 = 12;
const _: () = assert!(HEADER_BYTES == 12);
/// Frames of one turn, after which the receive queue and a stop have theirs.
const FRAMES_PER_TURN: usize = 64;

/// What has to happen before the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The driver rings.
    Doorbell,
    /// Nothing: there is more.
    Again,
    /// The tap has room.
    Writable,
}

/// The transmit queue at work.
#[derive(Debug)]
pub(super) struct Transmitter {
    pub(super) queue: Queue,
    chain: DescriptorChain,
    vectors: IoVectorStorage,
    features: u64,
    counters: Arc<NetCounters>,
}

enum Outcome {
    Passed { frame_bytes: usize },
    Refused { error: io::Error },
    Malformed { error: FrameError },
    NoRoom,
}

impl Transmitter {
    pub(super) fn new(queue: Queue, features: u64, counters: Arc<NetCounters>) -> Self {
        Self {
            chain: DescriptorChain::new(&queue),
            queue,
            vectors: IoVectorStorage::new(),
            features,
            counters,
        }
    }

    /// Sends what the driver has made available, in its order, up to the bound of a turn.
    pub(super) fn turn(
        &mut self,
        name: &str,
        tap: &Tap,
        interrupt: &dyn Interrupt,
    ) -> Result<Next, QueueError> {
        if !self.queue.ready() {
            return Ok(Next::Doorbell);
        }
        self.queue.disable_notification()?;
        let mut next = Next::Again;
        for _ in 0..FRAMES_PER_TURN {
            if !self.queue.pop(&mut self.chain)? {
                if self.queue.enable_notification()? {
                    self.queue.disable_notification()?;
                    continue;
                }
                next = Next::Doorbell;
                break;
            }
            match self.send(tap) {
                Outcome::Passed { frame_bytes } => self.counters.transmitted.passed(frame_bytes),
                Outcome::Refused { error } => self.drop_frame(name, &error),
                Outcome::Malformed { error } => self.drop_frame(name, &error),
                Outcome::NoRoom => {
                    self.queue.undo_pop(self.chain.head());
                    next = Next::Writable;
                    break;
                }
            }
            self.queue.add_used(self.chain.head(), 0)?;
        }
        if self.queue.needs_notification()? {
            interrupt.signal_used(QUEUE_INDEX);
        }
        Ok(next)
    }

    fn send(&mut self, tap: &Tap) -> Outcome {
        let readable = self.chain.readable();
        let mut header = [0; HEADER_BYTES];
        let malformed = |error| Outcome::Malformed { error };
        let Some((_, frame)) = readable.split_at(HEADER_LENGTH) else {
            return malformed(FrameError::TooShort);
        };
        readable.copy_to(&mut header);
        let frame_bytes = usize::try_from(frame.len()).unwrap_or(usize::MAX);
        header = match FrameHeader::from_bytes(header).for_tap(self.features, frame_bytes) {
            Ok(header) => header.to_bytes(),
            Err(error) => return malformed(error),
        };
        let mut vectors = IoVectors::new(&mut self.vectors);
        if vectors.push_bytes(&mut header).is_err() || vectors.push_buffers(frame).is_err() {
            return malformed(FrameError::TooManyPieces);
        }
        loop {
            match tap.write_frame(&vectors) {
                Ok(_) => return Outcome::Passed { frame_bytes },
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Outcome::NoRoom,
                    _ => return Outcome::Refused { error },
                },
            }
        }
    }

    /// Counts a frame that is not sent, and says why of the first: a guest can cause any number.
    fn drop_frame(&self, name: &str, error: &dyn std::error::Error) {
        if self.counters.transmitted.dropped() {
            tracing::warn!(
                device = name,
                "transmit: dropped: {error}; later ones are only counted"
            );
        }
    }
}
