//! A disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One virtio block device and the file or block device behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// A raw image or a block device; its size a multiple of 512 bytes.
    pub path: PathBuf,
    /// Whether the guest may only read it. Several machines may share a read-only disk.
    #[serde(default)]
    pub readonly: bool,
    /// How the host caches it.
    #[serde(default)]
    pub cache: CacheMode,
    /// Whether the image is locked while the machine has it, so that no two machines write to it.
    #[serde(default = "locked")]
    pub lock: bool,
    /// What the guest reads as the disk's serial number: at most 20 printable ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
}

/// A disk is locked unless somebody says otherwise.
const fn locked() -> bool {
    true
}

impl DiskConfig {
    /// A writable disk through the host's page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            readonly: false,
            cache: CacheMode::default(),
            lock: true,
            serial: None,
        }
    }
}

/// How the host caches a disk. In either mode the guest sees a write cache and flushes it when it has
/// to; what it has flushed is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Through the host's page cache.
    #[default]
    Writeback,
    /// Past the host's page cache (`O_DIRECT`).
    None,
}
