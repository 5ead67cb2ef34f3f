//! A request of a block driver (virtio 1.3, 5.2.6), however it is framed in descriptors (2.7.4).
//!
//! The header is the first 16 device-readable bytes, the status the last device-writable one; data
//! is what is readable behind the header or writable before the status.

use virtio_bindings::bindings::virtio_blk as bindings;

use crate::queue::{Buffers, DescriptorChain};

/// Bytes of the header: type, reserved, sector.
const HEADER_BYTES: usize = 16;
/// Bytes of a range in discard and write-zeroes: sector, number of sectors, flags.
const RANGE_BYTES: usize = 16;

/// What the driver asks for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Request<'a> {
    Read { sector: u64, data: Buffers<'a> },
    Write { sector: u64, data: Buffers<'a> },
    Flush,
    GetId { data: Buffers<'a> },
    Discard(SectorRange),
    WriteZeroes(SectorRange),
}

/// The one range of a discard or write-zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SectorRange {
    pub sector: u64,
    pub sectors: u32,
    pub unmap: bool,
}

/// What the driver reads at the end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    IoError,
    Unsupported,
}

impl Status {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::IoError => 1,
            Self::Unsupported => 2,
        }
    }
}

impl SectorRange {
    pub(super) fn length_bytes(self) -> u64 {
        u64::from(self.sectors).saturating_mul(block::SECTOR_BYTES)
    }

    /// A range as the driver wrote it; the status it gets if it is none.
    fn parse(data: Buffers<'_>) -> Result<Self, Status> {
        let mut bytes = [0; RANGE_BYTES];
        if data.len() != u64::try_from(RANGE_BYTES).unwrap_or(0) {
            // The configuration space says that there is one range.
            return Err(Status::IoError);
        }
        data.copy_to(&mut bytes);
        let [a, b, c, d, e, f, g, h, sectors @ .., i, j, k, l] = bytes;
        let flags = u32::from_le_bytes([i, j, k, l]);
        if flags & !bindings::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
            return Err(Status::Unsupported);
        }
        Ok(Self {
            sector: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sectors: u32::from_le_bytes(sectors),
            unmap: flags != 0,
        })
    }
}

/// Finds the request in `chain`, or the status that it gets at once.
///
/// # Errors
///
/// What is wrong, when there is no place for a status, so that nobody can be told.
pub(super) fn parse(chain: &DescriptorChain) -> Result<Result<Request<'_>, Status>, &'static str> {
    let (writable_data, _) = split_status(chain).ok_or("a request has no place for its status")?;
    Ok(parse_request(chain.readable(), writable_data))
}

/// Writes the status of the request in `chain`. Returns the bytes that the driver gave for answers: all
/// of them, as what is not written after an error is the driver's own memory.
pub(super) fn write_status(chain: &DescriptorChain, status: Status) -> u32 {
    if let Some((_, place)) = split_status(chain) {
        place.copy_from(&[status.code()]);
    }
    u32::try_from(chain.writable().len()).unwrap_or(u32::MAX)
}

/// What the device can write: data, and the byte of the status.
fn split_status(chain: &DescriptorChain) -> Option<(Buffers<'_>, Buffers<'_>)> {
    let writable = chain.writable();
    writable.split_at(writable.len().checked_sub(1)?)
}

fn parse_request<'a>(
    readable: Buffers<'a>,
    writable_data: Buffers<'a>,
) -> Result<Request<'a>, Status> {
    let mut header = [0; HEADER_BYTES];
    let header_bytes = u64::try_from(HEADER_BYTES).unwrap_or(0);
    let Some((front, readable_data)) = readable.split_at(header_bytes) else {
        return Err(Status::IoError);
    };
    front.copy_to(&mut header);
    let [a, b, c, d, _, _, _, _, sector @ ..] = header;
    let sector = u64::from_le_bytes(sector);
    match u32::from_le_bytes([a, b, c, d]) {
        bindings::VIRTIO_BLK_T_IN => Ok(Request::Read {
            sector,
            data: writable_data,
        }),
        bindings::VIRTIO_BLK_T_OUT => Ok(Request::Write {
            sector,
            data: readable_data,
        }),
        bindings::VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        bindings::VIRTIO_BLK_T_GET_ID => Ok(Request::GetId {
            data: writable_data,
        }),
        bindings::VIRTIO_BLK_T_DISCARD => SectorRange::parse(readable_data).map(Request::Discard),
        bindings::VIRTIO_BLK_T_WRITE_ZEROES => {
            SectorRange::parse(readable_data).map(Request::WriteZeroes)
        }
        _ => Err(Status::Unsupported),
    }
}
