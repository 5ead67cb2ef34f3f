//! What a header may say, by features and by the length of its frame.

use proptest::prelude::*;
use virtio_bindings::bindings::virtio_net::*;

use super::*;
use header::{FrameError, FrameHeader, MAX_FRAME_BYTES};

const ALL: u64 = u64::MAX;

fn tcp4(segment_bytes: u16) -> FrameHeader {
    FrameHeader {
        flags: 1,
        gso_type: 1,
        header_bytes: 54,
        segment_bytes,
        checksum_start: 34,
        checksum_offset: 16,
        buffer_count: 0,
    }
}

#[test]
fn layout_is_that_of_the_specification() {
    let header = FrameHeader {
        flags: 1,
        gso_type: 0x81,
        header_bytes: 0x0302,
        segment_bytes: 0x0504,
        checksum_start: 0x0706,
        checksum_offset: 0x0908,
        buffer_count: 0x0b0a,
    };
    assert_eq!(header.to_bytes(), [1, 0x81, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(FrameHeader::from_bytes(header.to_bytes()), header);
}

#[test]
fn plain_frames_pass_without_any_feature() {
    let plain = FrameHeader::default();
    for bytes in [14, 60, 1514, MAX_FRAME_BYTES] {
        assert_eq!(plain.for_tap(0, bytes), Ok(plain));
        assert_eq!(plain.for_driver(0, bytes, None), Ok(plain));
    }
    assert_eq!(plain.for_tap(ALL, 13), Err(FrameError::TooShort));
    assert_eq!(
        plain.for_tap(ALL, MAX_FRAME_BYTES + 1),
        Err(FrameError::TooLong)
    );
    assert_eq!(plain.for_driver(ALL, 0, None), Err(FrameError::TooShort));
}

#[test]
fn fields_without_a_meaning_are_cleared() {
    let noise = FrameHeader {
        flags: 0xfe,
        gso_type: 0,
        header_bytes: 9999,
        segment_bytes: 7,
        checksum_start: 9999,
        checksum_offset: 9999,
        buffer_count: 77,
    };
    let clean = FrameHeader {
        header_bytes: 60,
        ..FrameHeader::default()
    };
    assert_eq!(noise.for_tap(ALL, 60), Ok(clean));
    assert_eq!(noise.for_driver(0, 60, None).unwrap().flags, 0);
    assert_eq!(noise.for_driver(ALL, 60, None).unwrap().flags, 2);
}

#[test]
fn checksums_need_their_feature_and_their_place() {
    let header = FrameHeader {
        flags: 1,
        checksum_start: 34,
        checksum_offset: 6,
        ..FrameHeader::default()
    };
    let csum = bit(VIRTIO_NET_F_CSUM);
    assert_eq!(header.for_tap(csum, 42), Ok(header));
    assert_eq!(header.for_tap(csum, 41), Err(FrameError::ChecksumOutside));
    assert_eq!(
        header.for_tap(!csum, 42),
        Err(FrameError::ChecksumNotNegotiated)
    );
    let far = FrameHeader {
        checksum_start: u16::MAX,
        checksum_offset: u16::MAX,
        ..header
    };
    assert_eq!(
        far.for_tap(csum, MAX_FRAME_BYTES),
        Err(FrameError::ChecksumOutside)
    );
    let guest_csum = bit(VIRTIO_NET_F_GUEST_CSUM);
    assert_eq!(header.for_driver(guest_csum, 42, None), Ok(header));
    assert_eq!(
        header.for_driver(guest_csum, 41, None),
        Err(FrameError::ChecksumOutside)
    );
    assert_eq!(
        header.for_driver(!guest_csum, 42, None),
        Err(FrameError::ChecksumNotNegotiated)
    );
}

#[test]
fn each_kind_of_segmentation_needs_its_feature() {
    let kinds = [
        (
            VIRTIO_NET_HDR_GSO_TCPV4,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_GUEST_TSO4,
        ),
        (
            VIRTIO_NET_HDR_GSO_TCPV6,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_GUEST_TSO6,
        ),
        (
            VIRTIO_NET_HDR_GSO_UDP,
            VIRTIO_NET_F_HOST_UFO,
            VIRTIO_NET_F_GUEST_UFO,
        ),
        (
            VIRTIO_NET_HDR_GSO_UDP_L4,
            VIRTIO_NET_F_HOST_USO,
            VIRTIO_NET_F_GUEST_USO4,
        ),
        (
            VIRTIO_NET_HDR_GSO_UDP_L4,
            VIRTIO_NET_F_HOST_USO,
            VIRTIO_NET_F_GUEST_USO6,
        ),
    ];
    for (kind, host, guest) in kinds {
        let header = FrameHeader {
            gso_type: u8::try_from(kind).unwrap(),
            ..tcp4(1460)
        };
        let host = bit(host) | bit(VIRTIO_NET_F_CSUM);
        let guest = bit(guest) | bit(VIRTIO_NET_F_GUEST_CSUM);
        assert_eq!(header.for_tap(host, 9000), Ok(header));
        assert_eq!(header.for_driver(guest, 9000, Some(1500)), Ok(header));
        let refused = Err(FrameError::SegmentationNotNegotiated);
        assert_eq!(header.for_tap(bit(VIRTIO_NET_F_CSUM), 9000), refused);
        assert_eq!(
            header.for_driver(bit(VIRTIO_NET_F_GUEST_CSUM), 9000, None),
            refused
        );
    }
    for kind in [2, 6, 7, 0x7f] {
        let header = FrameHeader {
            gso_type: kind,
            ..tcp4(1460)
        };
        assert_eq!(
            header.for_tap(ALL, 9000),
            Err(FrameError::SegmentationNotNegotiated)
        );
        assert_eq!(
            header.for_driver(ALL, 9000, None),
            Err(FrameError::SegmentationNotNegotiated)
        );
    }
}

#[test]
fn congestion_notification_needs_its_feature() {
    let header = FrameHeader {
        gso_type: 0x81,
        ..tcp4(1460)
    };
    let without = bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4);
    assert_eq!(
        header.for_tap(without, 9000),
        Err(FrameError::SegmentationNotNegotiated)
    );
    assert_eq!(
        header.for_tap(without | bit(VIRTIO_NET_F_HOST_ECN), 9000),
        Ok(header)
    );
}

#[test]
fn segmentation_is_complete() {
    assert_eq!(
        tcp4(0).for_tap(ALL, 9000),
        Err(FrameError::SegmentationIncomplete)
    );
    let unsummed = FrameHeader {
        flags: 0,
        ..tcp4(1460)
    };
    assert_eq!(
        unsummed.for_tap(ALL, 9000),
        Err(FrameError::SegmentationIncomplete)
    );
}

#[test]
fn a_negotiated_mtu_holds_for_whole_frames_alone() {
    let plain = FrameHeader::default();
    assert!(plain.for_driver(0, 1518, Some(1500)).is_ok());
    assert_eq!(
        plain.for_driver(0, 1519, Some(1500)),
        Err(FrameError::BeyondMtu)
    );
    assert!(tcp4(1460).for_driver(ALL, 60_000, Some(1500)).is_ok());
}

proptest! {
    #[test]
    fn what_passes_is_safe_to_pass(bytes: [u8; 12], features: u64, frame_bytes in 0usize..70_000) {
        let header = FrameHeader::from_bytes(bytes);
        prop_assert_eq!(header.to_bytes(), bytes);
        if let Ok(passed) = header.for_tap(features, frame_bytes) {
            prop_assert!((14..=MAX_FRAME_BYTES).contains(&frame_bytes));
            prop_assert!(usize::from(passed.header_bytes) <= frame_bytes);
            prop_assert_eq!(passed.flags & !1, 0);
            prop_assert_eq!(passed.buffer_count, 0);
            let end = usize::from(passed.checksum_start) + usize::from(passed.checksum_offset) + 2;
            prop_assert!(passed.flags == 0 || end <= frame_bytes);
            prop_assert_eq!(passed.for_tap(features, frame_bytes), Ok(passed));
        }
        if let Ok(passed) = header.for_driver(features, frame_bytes, None) {
            prop_assert!(features & bit(VIRTIO_NET_F_GUEST_CSUM) != 0 || passed.flags == 0);
            prop_assert_eq!(passed.for_driver(features, frame_bytes, None), Ok(passed));
        }
    }
}
