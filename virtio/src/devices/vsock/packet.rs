//! The header of a packet (virtio 1.3, 5.10.6): who speaks to whom, what it is, and the sender's buffer.

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 44;
/// The host's context identifier (5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// The `type` of a packet of a stream (5.10.6.1).
pub(super) const TYPE_STREAM: u16 = 1;

/// Flags of [`Operation::Shutdown`] (5.10.6.5): what its sender will not do any more.
pub(super) mod shutdown {
    /// It receives no more data.
    pub(in super::super) const RECEIVE: u32 = 1;
    /// It sends no more data.
    pub(in super::super) const SEND: u32 = 2;
    /// Neither.
    pub(in super::super) const BOTH: u32 = RECEIVE | SEND;
}

/// What a packet is (`op`, 5.10.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Asks for a connection.
    Request,
    /// Takes one.
    Response,
    /// Refuses or ends one.
    Reset,
    /// Will send, or receive, no more.
    Shutdown,
    /// Carries data (`RW`).
    Data,
    /// Tells of the buffer alone.
    CreditUpdate,
    /// Asks for a credit update.
    CreditRequest,
}

impl Operation {
    /// The operation with this number; 0 is none.
    pub(super) const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }

    /// Its number.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Reset => 3,
            Self::Shutdown => 4,
            Self::Data => 5,
            Self::CreditUpdate => 6,
            Self::CreditRequest => 7,
        }
    }
}

/// `struct virtio_vsock_hdr`, as numbers: whatever the sender wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of data behind the header.
    pub(super) length: u32,
    pub(super) socket_type: u16,
    pub(super) operation: u16,
    pub(super) flags: u32,
    /// Size of the sender's buffer in bytes (`buf_alloc`).
    pub(super) buffer_bytes: u32,
    /// How many bytes have left that buffer since the beginning, modulo 2^32 (`fwd_cnt`).
    pub(super) forwarded_bytes: u32,
}

impl Header {
    /// The header in `bytes`.
    pub(super) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            source_cid: u64::from_le_bytes(take(&mut rest)),
            destination_cid: u64::from_le_bytes(take(&mut rest)),
            source_port: u32::from_le_bytes(take(&mut rest)),
            destination_port: u32::from_le_bytes(take(&mut rest)),
            length: u32::from_le_bytes(take(&mut rest)),
            socket_type: u16::from_le_bytes(take(&mut rest)),
            operation: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buffer_bytes: u32::from_le_bytes(take(&mut rest)),
            forwarded_bytes: u32::from_le_bytes(take(&mut rest)),
        }
    }

    /// The header as it goes over the queue.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, self.source_cid.to_le_bytes());
        put(&mut rest, self.destination_cid.to_le_bytes());
        put(&mut rest, self.source_port.to_le_bytes());
        put(&mut rest, self.destination_port.to_le_bytes());
        put(&mut rest, self.length.to_le_bytes());
        put(&mut rest, self.socket_type.to_le_bytes());
        put(&mut rest, self.operation.to_le_bytes());
        put(&mut rest, self.flags.to_le_bytes());
        put(&mut rest, self.buffer_bytes.to_le_bytes());
        put(&mut rest, self.forwarded_bytes.to_le_bytes());
        bytes
    }

    /// The packet that refuses the one with this header.
    pub(super) fn refusal(&self) -> Self {
        Self {
            source_cid: self.destination_cid,
            destination_cid: self.source_cid,
            source_port: self.destination_port,
            destination_port: self.source_port,
            socket_type: self.socket_type,
            operation: Operation::Reset.number(),
            ..Self::default()
        }
    }
}

/// The first `N` bytes, of which `rest` is relieved.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    match rest.split_first_chunk() {
        Some((first, others)) => {
            *rest = others;
            *first
        }
        None => [0; N],
    }
}

/// Writes `field` to the beginning of `rest`, which goes on behind it.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((first, others)) = std::mem::take(rest).split_first_chunk_mut() {
        *first = field;
        *rest = others;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_header_and_back(bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES)) {
            let bytes: [u8; HEADER_BYTES] = bytes.try_into().unwrap();
            prop_assert_eq!(Header::from_bytes(&bytes).to_bytes(), bytes);
        }

        #[test]
        fn numbers_are_those_of_operations(number: u16) {
            let operation = Operation::from_number(number);
            prop_assert_eq!(operation.is_some(), (1..=7).contains(&number));
            if let Some(operation) = operation {
                prop_assert_eq!(operation.number(), number);
            }
        }
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let header = Header {
            source_cid: 0x0102,
            destination_cid: 0x0304,
            source_port: 5,
            destination_port: 6,
            length: 7,
            socket_type: 8,
            operation: 9,
            flags: 10,
            buffer_bytes: 11,
            forwarded_bytes: 12,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..10], [2, 1, 0, 0, 0, 0, 0, 0, 4, 3]);
        let places = [16, 20, 24, 28, 30, 32, 36, 40];
        assert_eq!(places.map(|at| bytes[at]), [5, 6, 7, 8, 9, 10, 11, 12]);
    }
}
