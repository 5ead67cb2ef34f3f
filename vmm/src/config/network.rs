//! A network interface.

use serde::{Deserialize, Serialize};
use virtio::devices::net::MacAddress;

/// One virtio network device on a TAP interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetConfig {
    /// The TAP interface: at most 15 bytes.
    pub tap: String,
    /// Whether the TAP interface is made, and vanishes with the machine, when there is none of that
    /// name.
    #[serde(default)]
    pub create: bool,
    /// The guest's address. One derived from the names of the machine and the interface where there is
    /// none, so that it is the same at each start.
    #[serde(default, with = "notation", skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// The largest payload of a frame that the guest is told, in bytes: 68 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// An Ethernet address in its notation, `52:54:00:12:34:56`.
mod notation {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::MacAddress;

    pub fn serialize<S: Serializer>(
        address: &Option<MacAddress>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        address
            .map(|address| address.to_string())
            .serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<MacAddress>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}
