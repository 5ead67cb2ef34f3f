//! The entropy device (virtio 1.3, 5.4).

use crate::dma::DmaBuffer;
use crate::virtio::{Buffer, Device, Layout, Queue, feature};

/// A started entropy device.
#[derive(Debug)]
pub struct EntropyDevice {
    /// The transport.
    pub device: Device,
    /// The request queue.
    pub queue: Queue,
}

impl EntropyDevice {
    /// Resets and starts `device` with those of `wanted` that it offers, and with packed rings if it does.
    pub fn start(device: Device, wanted: u64) -> Self {
        let features = device.negotiate(wanted | feature::RING_PACKED);
        let queue = Queue::with(features, 0, 16);
        device.set_up_queue(&queue);
        device.start();
        Self { device, queue }
    }

    /// Fills some of `data`, from its start: how many bytes.
    pub fn fill(&mut self, layout: Layout, data: DmaBuffer) -> usize {
        self.queue
            .request(self.device, layout, &[Buffer::FromDevice(data)]) as usize
    }
}
