//! Guest memory.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// How much memory a guest has and how the host provides it.
///
/// Read from a map, or from a size alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Notation")]
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

/// What a user may write: `1G`, or a map with `size`.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a size such as 1G, or size, shared, hugepages (off, transparent, 2M, 1G), prefault"
)]
enum Notation {
    Size(ByteSize),
    Map(Map),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Map {
    size: ByteSize,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    hugepages: HugePages,
    #[serde(default)]
    prefault: bool,
}

impl From<Notation> for MemoryConfig {
    fn from(notation: Notation) -> Self {
        match notation {
            Notation::Size(size) => Self::with_size(size),
            Notation::Map(map) => Self {
                size: map.size,
                shared: map.shared,
                hugepages: map.hugepages,
                prefault: map.prefault,
            },
        }
    }
}
