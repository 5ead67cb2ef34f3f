//! Configuration space of a block device (virtio 1.3, 5.2.4).

use block::Disk;

use super::QUEUE_SIZE;

/// Bytes of the configuration space, up to and with `unused1`.
const CONFIG_BYTES: usize = 60;
/// Where `writeback` is; `capacity` is at the start.
const WRITEBACK_OFFSET: usize = 32;

/// Most buffers of data in a request: a chain as long as the queue, less header and status.
const SEGMENTS_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Most bytes of one buffer, more than what drivers send.
const SEGMENT_MAX_BYTES: u32 = 256 << 10;
/// Most bytes of data in a request: what the two limits allow. A longer one fails; it would hold the
/// device's thread, and a stop that waits for it, for seconds.
pub(super) const REQUEST_MAX_BYTES: u64 = SEGMENTS_MAX as u64 * SEGMENT_MAX_BYTES as u64;
/// Most sectors of one discard: 2 GiB, which a file system does in milliseconds.
pub(super) const DISCARD_MAX_SECTORS: u32 = 1 << 22;
/// Most sectors of one write-zeroes: 16 MiB, which may have to be written.
pub(super) const WRITE_ZEROES_MAX_SECTORS: u32 = 1 << 15;

/// The configuration space as bytes; what changes, `capacity` and `writeback`, is not in it.
#[derive(Debug)]
pub(super) struct ConfigSpace {
    bytes: [u8; CONFIG_BYTES],
}

impl ConfigSpace {
    pub(super) fn new(disk: &Disk, queues: u16) -> Self {
        let topology = disk.topology();
        let block = topology.logical_block_bytes.max(512);
        let blocks = |bytes: u32| bytes.checked_div(block).unwrap_or(0);
        let physical_block_exponent = blocks(topology.physical_block_bytes)
            .checked_ilog2()
            .unwrap_or(0);
        let alignment = u8::try_from(blocks(topology.alignment_offset_bytes)).unwrap_or(0);
        let minimum_io = u16::try_from(blocks(topology.minimum_io_bytes)).unwrap_or(0);
        let discard_alignment = topology.discard_granularity_bytes / 512;
        let mut space = Writer::default();
        space.put([0; 8]); // 0: capacity
        space.put(SEGMENT_MAX_BYTES.to_le_bytes()); // 8: size_max
        space.put(SEGMENTS_MAX.to_le_bytes()); // 12: seg_max
        space.put([0; 4]); // 16: geometry
        space.put(block.to_le_bytes()); // 20: blk_size
        space.put([u8::try_from(physical_block_exponent).unwrap_or(0)]); // 24
        space.put([alignment]); // 25: alignment_offset
        space.put(minimum_io.to_le_bytes()); // 26: min_io_size
        space.put(blocks(topology.optimal_io_bytes).to_le_bytes()); // 28: opt_io_size
        space.put([0; 2]); // 32: writeback, unused0
        space.put(queues.to_le_bytes()); // 34: num_queues
        space.put(DISCARD_MAX_SECTORS.to_le_bytes()); // 36: max_discard_sectors
        space.put(1_u32.to_le_bytes()); // 40: max_discard_seg
        space.put(discard_alignment.max(1).to_le_bytes()); // 44: discard_sector_alignment
        space.put(WRITE_ZEROES_MAX_SECTORS.to_le_bytes()); // 48: max_write_zeroes_sectors
        space.put(1_u32.to_le_bytes()); // 52: max_write_zeroes_seg
        space.put([1, 0, 0, 0]); // 56: write_zeroes_may_unmap, unused1
        Self { bytes: space.bytes }
    }

    /// Copies the bytes from `offset`; beyond the end `data` stays as it is.
    pub(super) fn read(&self, sectors: u64, writeback: bool, offset: u64, data: &mut [u8]) {
        let capacity = sectors.to_le_bytes();
        let Ok(offset) = usize::try_from(offset) else {
            return;
        };
        for (position, byte) in (offset..CONFIG_BYTES).zip(data) {
            *byte = match capacity.get(position) {
                Some(&byte) => byte,
                None if position == WRITEBACK_OFFSET => u8::from(writeback),
                None => self.bytes.get(position).copied().unwrap_or(0),
            };
        }
    }

    /// What a write means for `writeback`, the one field that can be written: `None` when it is not
    /// in it, or gets a value that it does not have.
    pub(super) fn written_cache_mode(offset: u64, data: &[u8]) -> Option<bool> {
        let position = u64::try_from(WRITEBACK_OFFSET).ok()?.checked_sub(offset)?;
        match data.get(usize::try_from(position).ok()?)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// Fills the bytes one field after the other.
struct Writer {
    bytes: [u8; CONFIG_BYTES],
    position: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            bytes: [0; CONFIG_BYTES],
            position: 0,
        }
    }
}

impl Writer {
    fn put<const N: usize>(&mut self, field: [u8; N]) {
        let end = self.position.saturating_add(N);
        if let Some(place) = self.bytes.get_mut(self.position..end) {
            place.copy_from_slice(&field);
        }
        self.position = end;
    }
}
