//! virtio entropy device (virtio 1.3, 5.4): the host's random numbers.
//!
//! One queue, whose buffers the device fills. Random bytes go from the kernel straight into the guest's
//! memory; nothing of them stays here.

use std::io;
use std::sync::Arc;

use crate::queue::{Buffers, DescriptorChain, Queue};
use crate::worker::{Fault, OwnEvents, Turn, Worker, WorkerTask, serve};
use crate::{Activation, ActiveQueue, Interrupt, StartError, VirtioDevice};

/// Device type (5).
const DEVICE_TYPE: u32 = 4;

/// The device's one queue.
const QUEUE_MAX_SIZES: [u16; 1] = [64];

/// Most bytes that one request gets: a guest that asks for gigabytes must not hold the thread, and a
/// stop, for seconds. A driver takes what it got and asks again (5.4.6.1).
const REQUEST_MAX_BYTES: u64 = 64 * 1024;

/// Requests in one turn: a stop waits for no more.
const REQUESTS_PER_TURN: u16 = 16;

/// A virtio entropy device.
#[derive(Debug, Default)]
pub struct Rng {
    worker: Option<Worker<Task>>,
}

impl Rng {
    /// A device that is not started.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn name(&self) -> &str {
        "rng"
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &QUEUE_MAX_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn start(&mut self, mut activation: Activation) -> Result<(), StartError> {
        let [ActiveQueue { queue, doorbell }] = activation.take_queues()?;
        let task = Task {
            chain: DescriptorChain::new(&queue),
            queue,
            interrupt: Arc::clone(&activation.interrupt),
        };
        self.worker = Some(Worker::start(
            self.name(),
            task,
            vec![doorbell],
            activation.interrupt,
        )?);
        Ok(())
    }

    fn stop(&mut self) -> Vec<Queue> {
        self.worker
            .take()
            .and_then(Worker::stop)
            .map_or_else(Vec::new, |task| vec![task.queue])
    }
}

/// What the device's thread has.
#[derive(Debug)]
struct Task {
    queue: Queue,
    chain: DescriptorChain,
    interrupt: Arc<dyn Interrupt>,
}

impl WorkerTask for Task {
    fn doorbell(
        &mut self,
        _queue_index: usize,
        _events: &mut OwnEvents<'_, '_>,
    ) -> Result<Turn, Fault> {
        serve(
            0,
            &mut self.queue,
            &mut self.chain,
            &*self.interrupt,
            REQUESTS_PER_TURN,
            |chain| Ok(fill(chain.writable())),
        )
    }
}

/// Fills `buffers` as far as one request gets; returns how many bytes it got.
fn fill(buffers: Buffers<'_>) -> u32 {
    let wanted = buffers.len().min(REQUEST_MAX_BYTES);
    let Some((wanted, _)) = buffers.split_at(wanted) else {
        return 0;
    };
    let mut done = 0_u32;
    for segment in wanted.segments() {
        let mut filled = 0_usize;
        while filled < segment.len() {
            let rest = segment.len().saturating_sub(filled);
            let start = segment.as_ptr().wrapping_add(filled);
            // SAFETY: `start` and `rest` are within the segment, which is guest memory that the chain
            // keeps mapped.
            let got = unsafe { libc::getrandom(start.cast(), rest, 0) };
            match u32::try_from(got) {
                Ok(count) => {
                    filled = filled.saturating_add(usize::try_from(count).unwrap_or(rest));
                    done = done.saturating_add(count);
                }
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                // Without its flags, getrandom does not fail otherwise; the driver sees a short answer.
                Err(_) => return done,
            }
        }
    }
    done
}

#[cfg(test)]
mod tests;
