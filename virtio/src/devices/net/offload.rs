//! Which offload features a tap makes possible, and what negotiated ones mean to it (virtio 1.3,
//! 5.1.3 and 5.1.3.1).

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO,
};

use crate::tap::TapOffloads;

/// Guest to host: the feature, and what the tap has to know for it.
const HOST: [(u32, TapOffloads); 6] = [
    (VIRTIO_NET_F_CSUM, TapOffloads::CSUM),
    (VIRTIO_NET_F_HOST_TSO4, TapOffloads::TSO4),
    (VIRTIO_NET_F_HOST_TSO6, TapOffloads::TSO6),
    (VIRTIO_NET_F_HOST_ECN, TapOffloads::TSO_ECN),
    (VIRTIO_NET_F_HOST_UFO, TapOffloads::UFO),
    (VIRTIO_NET_F_HOST_USO, TapOffloads::USO),
];

/// Host to guest: the feature, and what the tap is told when it is negotiated.
const GUEST: [(u32, TapOffloads); 7] = [
    (VIRTIO_NET_F_GUEST_CSUM, TapOffloads::CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, TapOffloads::TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, TapOffloads::TSO6),
    (VIRTIO_NET_F_GUEST_ECN, TapOffloads::TSO_ECN),
    (VIRTIO_NET_F_GUEST_UFO, TapOffloads::UFO),
    (VIRTIO_NET_F_GUEST_USO4, TapOffloads::USO4),
    (VIRTIO_NET_F_GUEST_USO6, TapOffloads::USO6),
];

/// The bit of a feature.
pub(super) const fn bit(feature: u32) -> u64 {
    1u64.wrapping_shl(feature)
}

/// Features that a tap with these offloads makes possible.
pub(super) fn features_of(supported: TapOffloads) -> u64 {
    HOST.iter()
        .chain(&GUEST)
        .filter(|(_, offload)| supported.contains(*offload))
        .fold(0, |features, (feature, _)| features | bit(*feature))
}

/// What the tap may hand to a driver that negotiated `features`.
pub(super) fn offloads_of(features: u64) -> TapOffloads {
    GUEST
        .iter()
        .filter(|(feature, _)| features & bit(*feature) != 0)
        .fold(TapOffloads::NONE, |offloads, (_, offload)| {
            offloads | *offload
        })
        .normalised()
}
