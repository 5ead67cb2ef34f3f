//! Guest memory.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::ByteSize;

/// How much memory a guest has and how the host provides it.
///
/// Read from a map, or from a size alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryConfig {
    /// How much: a multiple of 4 KiB.
    pub size: ByteSize,
    /// Whether it is a memfd, which another process can map, rather than private anonymous memory.
    pub shared: bool,
    /// The pages that the host uses.
    pub hugepages: HugePages,
    /// Whether all of it is allocated before the guest starts.
    pub prefault: bool,
}

impl MemoryConfig {
    /// `size` of memory and the defaults for the rest.
    pub const fn with_size(size: ByteSize) -> Self {
        Self {
            size,
            shared: false,
            hugepages: HugePages::Off,
            prefault: false,
        }
    }
}

impl Default for MemoryConfig {
    /// 512 MiB: what a stock distribution kernel with its initrd starts in.
    fn default() -> Self {
        Self::with_size(ByteSize(512 << 20))
    }
}

/// Which pages the host backs guest memory with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum HugePages {
    /// Whatever the host does by itself.
    #[default]
    #[serde(rename = "off")]
    Off,
    /// The host is asked for transparent huge pages.
    #[serde(rename = "transparent")]
    Transparent,
    /// Reserved huge pages of 2 MiB.
    #[serde(rename = "2M")]
    Size2M,
    /// Reserved huge pages of 1 GiB.
    #[serde(rename = "1G")]
    Size1G,
}

impl HugePages {
    /// The size of a page in bytes, where it has to divide the size of the memory.
    pub const fn page_size_bytes(self) -> u64 {
        match self {
            Self::Off | Self::Transparent => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

/// The map, for which serde writes the code.
#[derive(Deserialize)]
#[serde(remote = "MemoryConfig", deny_unknown_fields)]
struct Map {
    size: ByteSize,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    hugepages: HugePages,
    #[serde(default)]
    prefault: bool,
}

impl<'de> Deserialize<'de> for MemoryConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Notation;

        // Not an untagged enumeration: that one forgets which key was wrong.
        impl<'de> Visitor<'de> for Notation {
            type Value = MemoryConfig;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a size such as 1G, or a map with size")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryConfig, E> {
                let size = text.parse().map_err(E::custom)?;
                Ok(MemoryConfig::with_size(size))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemoryConfig, E> {
                Ok(MemoryConfig::with_size(ByteSize(bytes)))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemoryConfig, E> {
                let bytes =
                    u64::try_from(bytes).map_err(|_| E::custom("a size cannot be negative"))?;
                self.visit_u64(bytes)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MemoryConfig, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_any(Notation)
    }
}
