//! The block device (virtio 1.3, 5.2).

use crate::dma::DmaBuffer;
use crate::virtio::{Buffer, Device, Layout, Queue, feature};

/// Bytes of a sector.
pub const SECTOR_BYTES: usize = 512;

/// Feature bits (virtio 1.3, 5.2.3).
pub mod bit {
    /// `seg_max` holds.
    pub const SEG_MAX: u64 = 1 << 2;
    /// The device is read-only.
    pub const RO: u64 = 1 << 5;
    /// `blk_size` holds.
    pub const BLK_SIZE: u64 = 1 << 6;
    /// Flush requests.
    pub const FLUSH: u64 = 1 << 9;
    /// `topology` holds.
    pub const TOPOLOGY: u64 = 1 << 10;
    /// Discard requests.
    pub const DISCARD: u64 = 1 << 13;
    /// Write-zeroes requests.
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Request types (virtio 1.3, 5.2.6).
pub mod kind {
    /// Read.
    pub const IN: u32 = 0;
    /// Write.
    pub const OUT: u32 = 1;
    /// Flush.
    pub const FLUSH: u32 = 4;
    /// Identity string.
    pub const GET_ID: u32 = 8;
    /// Discard.
    pub const DISCARD: u32 = 11;
    /// Write zeroes.
    pub const WRITE_ZEROES: u32 = 13;
}

/// Status byte: done.
pub const STATUS_OK: u8 = 0;
/// Status byte: failed.
pub const STATUS_IOERR: u8 = 1;
/// Status byte: no such request type.
pub const STATUS_UNSUPP: u8 = 2;

/// A started block device with its one queue.
#[derive(Debug)]
pub struct BlockDevice {
    /// The transport.
    pub device: Device,
    /// The request queue.
    pub queue: Queue,
    /// What was agreed upon.
    pub features: u64,
    header: DmaBuffer,
    status: DmaBuffer,
}

impl BlockDevice {
    /// Resets and starts `device` with those of `wanted` that it offers, and with packed rings if it does.
    pub fn start(device: Device, wanted: u64) -> Self {
        let features = device.negotiate(wanted | feature::RING_PACKED);
        let queue = Queue::with(features, 0, 64);
        device.set_up_queue(&queue);
        device.start();
        Self {
            device,
            queue,
            features,
            header: DmaBuffer::allocate(16, 16),
            status: DmaBuffer::allocate(1, 1),
        }
    }

    /// Capacity in sectors.
    pub fn capacity(&self) -> u64 {
        u64::from(self.config_u32(0)) | u64::from(self.config_u32(4)) << 32
    }

    /// 32 bits of the configuration.
    pub fn config_u32(&self, offset: usize) -> u32 {
        self.device.config().read_u32(offset)
    }

    /// One request with `data` between header and status: the status byte and how many bytes the device
    /// says it wrote.
    ///
    /// # Panics
    ///
    /// When there are more than 14 pieces of data, or no completion.
    pub fn request(
        &mut self,
        layout: Layout,
        kind: u32,
        sector: u64,
        data: &[Buffer],
    ) -> (u8, u32) {
        set_header(self.header, kind, sector);
        self.status.fill(0xee);
        let mut buffers = [Buffer::ToDevice(self.header); 16];
        buffers[1..=data.len()].copy_from_slice(data);
        buffers[data.len() + 1] = Buffer::FromDevice(self.status);
        let written = self
            .queue
            .request(self.device, layout, &buffers[..data.len() + 2]);
        (self.status.read_u8(0), written)
    }

    /// Reads into `data`.
    ///
    /// # Panics
    ///
    /// When the device fails the request, or says another length.
    pub fn read(&mut self, layout: Layout, sector: u64, data: DmaBuffer) {
        let (status, written) = self.request(layout, kind::IN, sector, &[Buffer::FromDevice(data)]);
        assert_eq!(status, STATUS_OK, "read of sector {sector}");
        assert_eq!(written as usize, data.len() + 1, "bytes written by a read");
    }

    /// Writes `data`.
    ///
    /// # Panics
    ///
    /// When the device fails the request, or says another length.
    pub fn write(&mut self, layout: Layout, sector: u64, data: DmaBuffer) {
        let (status, written) = self.request(layout, kind::OUT, sector, &[Buffer::ToDevice(data)]);
        assert_eq!(status, STATUS_OK, "write of sector {sector}");
        assert_eq!(written, 1, "bytes written by a write");
    }

    /// Flushes.
    ///
    /// # Panics
    ///
    /// When the device fails the request.
    pub fn flush(&mut self) {
        let (status, _) = self.request(Layout::Chain, kind::FLUSH, 0, &[]);
        assert_eq!(status, STATUS_OK, "flush");
    }
}

/// Writes a request header (virtio 1.3, 5.2.6).
pub fn set_header(header: DmaBuffer, kind: u32, sector: u64) {
    header.write(0, &kind.to_le_bytes());
    header.write(4, &0u32.to_le_bytes());
    header.write(8, &sector.to_le_bytes());
}
