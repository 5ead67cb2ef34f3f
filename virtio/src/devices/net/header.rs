//! The header before each frame, `struct virtio_net_hdr` (virtio 1.3, 5.1.6), and what each side may
//! say in it.
//!
//! A header is never passed on as it is: one from the driver is copied out of its memory once, so that
//! it cannot change after it was checked, and one from the tap is checked before the driver sees it.

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_HDR_F_DATA_VALID,
    VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_NONE,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP,
    VIRTIO_NET_HDR_GSO_UDP_L4,
};

use super::offload::bit;
use crate::tap::HEADER_BYTES;

/// Bytes of an Ethernet header, without a VLAN tag.
pub(super) const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes of a VLAN tag.
const VLAN_TAG_BYTES: usize = 4;
/// The longest frame that either side sends: 64 KiB to be segmented (virtio 1.3, 5.1.6.3.1), its
/// Ethernet header and a VLAN tag. Linux cuts larger ones before they reach a tap.
pub(super) const MAX_FRAME_BYTES: usize = 65_536 + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;

/// The longest frame of a link with an MTU of `mtu_bytes`.
pub(super) const fn frame_bytes_of(mtu_bytes: usize) -> usize {
    mtu_bytes
        .saturating_add(ETHERNET_HEADER_BYTES)
        .saturating_add(VLAN_TAG_BYTES)
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FrameHeader {
    pub flags: u8,
    pub gso_type: u8,
    pub header_bytes: u16,
    pub segment_bytes: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
    pub buffer_count: u16,
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame shorter than its headers")]
    TooShort,
    #[error("a frame longer than any can be")]
    TooLong,
    #[error("a frame in too many pieces")]
    TooManyPieces,
    #[error("a frame beyond the negotiated MTU")]
    BeyondMtu,
    #[error("a checksum is left to the other side, which was not negotiated")]
    ChecksumNotNegotiated,
    #[error("a checksum outside of its frame")]
    ChecksumOutside,
    #[error("segmentation that was not negotiated, or of an unknown kind")]
    SegmentationNotNegotiated,
    #[error("segmentation without a checksum or into segments of no bytes")]
    SegmentationIncomplete,
    #[error("a frame that does not fit the driver's buffers")]
    NoFit,
}

impl FrameHeader {
    pub(super) fn from_bytes(bytes: [u8; HEADER_BYTES]) -> Self {
        let [flags, gso_type, a, b, c, d, e, f, g, h, i, j] = bytes;
        Self {
            flags,
            gso_type,
            header_bytes: u16::from_le_bytes([a, b]),
            segment_bytes: u16::from_le_bytes([c, d]),
            checksum_start: u16::from_le_bytes([e, f]),
            checksum_offset: u16::from_le_bytes([g, h]),
            buffer_count: u16::from_le_bytes([i, j]),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [a, b] = self.header_bytes.to_le_bytes();
        let [c, d] = self.segment_bytes.to_le_bytes();
        let [e, f] = self.checksum_start.to_le_bytes();
        let [g, h] = self.checksum_offset.to_le_bytes();
        let [i, j] = self.buffer_count.to_le_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h, i, j]
    }

    /// The header that goes to the tap for one that the driver wrote before a frame of `frame_bytes`
    /// (5.1.6.2). The kernel checks what it reads again, so that this is about what was negotiated.
    pub(super) fn for_tap(self, features: u64, frame_bytes: usize) -> Result<Self, FrameError> {
        if frame_bytes < ETHERNET_HEADER_BYTES {
            return Err(FrameError::TooShort);
        }
        if frame_bytes > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong);
        }
        // Flags that a driver has no business to set are not looked at (5.1.6.2.2).
        let flags = self.flags & flag(VIRTIO_NET_HDR_F_NEEDS_CSUM);
        let mut header = Self {
            flags,
            buffer_count: 0,
            ..self
        };
        if flags == 0 {
            header.checksum_start = 0;
            header.checksum_offset = 0;
        } else {
            if features & bit(VIRTIO_NET_F_CSUM) == 0 {
                return Err(FrameError::ChecksumNotNegotiated);
            }
            self.check_checksum_place(frame_bytes)?;
        }
        // A hint that cannot be relied on (5.1.6.2.2); the kernel refuses one beyond the frame.
        let most = u16::try_from(frame_bytes).unwrap_or(u16::MAX);
        header.header_bytes = self.header_bytes.min(most);
        if u32::from(self.gso_type) == VIRTIO_NET_HDR_GSO_NONE {
            header.segment_bytes = 0;
        } else {
            self.check_segmentation(features, &HOST_SEGMENTATION, VIRTIO_NET_F_HOST_ECN)?;
            if flags == 0 || self.segment_bytes == 0 {
                return Err(FrameError::SegmentationIncomplete);
            }
        }
        Ok(header)
    }

    /// The header that goes to the driver for one that the tap wrote before a frame of `frame_bytes`
    /// (5.1.6.4.1). Frames that came to the tap before this driver had its say can be of kinds that
    /// it did not negotiate.
    pub(super) fn for_driver(
        self,
        features: u64,
        frame_bytes: usize,
        mtu_bytes: Option<u16>,
    ) -> Result<Self, FrameError> {
        if frame_bytes == 0 {
            return Err(FrameError::TooShort);
        }
        let needs_checksum = self.flags & flag(VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
        let known = flag(VIRTIO_NET_HDR_F_NEEDS_CSUM) | flag(VIRTIO_NET_HDR_F_DATA_VALID);
        let mut flags = self.flags & known;
        if features & bit(VIRTIO_NET_F_GUEST_CSUM) == 0 {
            if needs_checksum {
                return Err(FrameError::ChecksumNotNegotiated);
            }
            flags = 0;
        }
        if needs_checksum {
            self.check_checksum_place(frame_bytes)?;
        }
        let mut header = Self { flags, ..self };
        if u32::from(self.gso_type) == VIRTIO_NET_HDR_GSO_NONE {
            header.segment_bytes = 0;
            if mtu_bytes.is_some_and(|mtu| frame_bytes > frame_bytes_of(usize::from(mtu))) {
                return Err(FrameError::BeyondMtu);
            }
        } else {
            self.check_segmentation(features, &GUEST_SEGMENTATION, VIRTIO_NET_F_GUEST_ECN)?;
        }
        Ok(header)
    }

    fn check_checksum_place(self, frame_bytes: usize) -> Result<(), FrameError> {
        let end = usize::from(self.checksum_start)
            .saturating_add(usize::from(self.checksum_offset))
            .saturating_add(size_of::<u16>());
        if end > frame_bytes {
            Err(FrameError::ChecksumOutside)
        } else {
            Ok(())
        }
    }

    fn check_segmentation(
        self,
        features: u64,
        kinds: &[(u32, u64)],
        ecn_feature: u32,
    ) -> Result<(), FrameError> {
        let kind = self.gso_type & !flag(VIRTIO_NET_HDR_GSO_ECN);
        let ecn = self.gso_type & flag(VIRTIO_NET_HDR_GSO_ECN) != 0;
        let negotiated = kinds
            .iter()
            .any(|(known, wanted)| *known == u32::from(kind) && features & wanted != 0);
        if !negotiated || (ecn && features & bit(ecn_feature) == 0) {
            return Err(FrameError::SegmentationNotNegotiated);
        }
        Ok(())
    }
}

/// Kinds of segmentation from the driver, each with the features of which it needs one.
const HOST_SEGMENTATION: [(u32, u64); 4] = [
    (VIRTIO_NET_HDR_GSO_TCPV4, bit(VIRTIO_NET_F_HOST_TSO4)),
    (VIRTIO_NET_HDR_GSO_TCPV6, bit(VIRTIO_NET_F_HOST_TSO6)),
    (VIRTIO_NET_HDR_GSO_UDP, bit(VIRTIO_NET_F_HOST_UFO)),
    (VIRTIO_NET_HDR_GSO_UDP_L4, bit(VIRTIO_NET_F_HOST_USO)),
];

/// Kinds of segmentation to the driver, each with the features of which it needs one.
const GUEST_SEGMENTATION: [(u32, u64); 4] = [
    (VIRTIO_NET_HDR_GSO_TCPV4, bit(VIRTIO_NET_F_GUEST_TSO4)),
    (VIRTIO_NET_HDR_GSO_TCPV6, bit(VIRTIO_NET_F_GUEST_TSO6)),
    (VIRTIO_NET_HDR_GSO_UDP, bit(VIRTIO_NET_F_GUEST_UFO)),
    (
        VIRTIO_NET_HDR_GSO_UDP_L4,
        bit(VIRTIO_NET_F_GUEST_USO4) | bit(VIRTIO_NET_F_GUEST_USO6),
    ),
];

/// The bindings have the header's one-byte values in 32 bits.
const fn flag(value: u32) -> u8 {
    let [low, ..] = value.to_le_bytes();
    low
}
