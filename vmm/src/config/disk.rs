//! A disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// One virtio block device and the file or block device behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiskConfig {
    /// An image or a block device; its size a multiple of 512 bytes.
    pub path: PathBuf,
    /// What the image is.
    #[serde(default)]
    pub format: DiskFormat,
    /// Whether the guest may only read it. Several machines may share a read-only disk.
    #[serde(default)]
    pub readonly: bool,
    /// The name or number of an internal snapshot of a qcow2 image, which is then the disk, for reading alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// How the host caches it.
    #[serde(default)]
    pub cache: CacheMode,
    /// Whether the image is locked while the machine has it, so that no two machines write to it.
    #[serde(default = "locked")]
    pub lock: bool,
    /// What the guest reads as the disk's serial number: at most 20 printable ASCII characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Who carries its requests out.
    #[serde(default)]
    pub engine: DiskEngine,
    /// Whether completions are polled for.
    #[serde(default)]
    pub iopoll: DiskPolling,
    /// Queues, each with a thread of its own once the guest uses it: 1 to [`DISK_QUEUES_MAX`]. One for each
    /// vCPU, up to four, where nothing is said: more threads than that have nothing to do with most disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<u16>,
    /// Most bytes read and written in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps: Option<ByteSize>,
    /// Bytes that may go at once after a pause; a tenth of `bps` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bps_burst: Option<ByteSize>,
    /// Most requests in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u64>,
    /// Requests that may go at once after a pause; a tenth of `iops` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops_burst: Option<u64>,
    /// What becomes of a request that the host fails.
    #[serde(default)]
    pub on_error: DiskErrorAction,
}

/// The most queues that a disk can have.
pub const DISK_QUEUES_MAX: u16 = virtio::devices::blk::QUEUES_MAX;

/// A disk is locked unless somebody says otherwise.
const fn locked() -> bool {
    true
}

impl DiskConfig {
    /// A writable disk through the host's page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: DiskFormat::default(),
            readonly: false,
            snapshot: None,
            cache: CacheMode::default(),
            lock: true,
            serial: None,
            engine: DiskEngine::default(),
            iopoll: DiskPolling::default(),
            queues: None,
            bps: None,
            bps_burst: None,
            iops: None,
            iops_burst: None,
            on_error: DiskErrorAction::default(),
        }
    }
}

/// What the file of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The bytes of the disk, whatever they look like.
    #[default]
    Raw,
    /// A qcow2 image.
    Qcow2,
    /// What its first bytes say. Not for a disk that a guest has written to as a raw one, as it may have
    /// written the head of a qcow2 image there, with any file of the host behind it.
    Auto,
}

/// How the host caches a disk, and what a flush means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Through the host's page cache; the guest sees a write cache, and what it flushes is on the disk.
    #[default]
    Writeback,
    /// Past the host's page cache (`O_DIRECT`); the guest sees a write cache all the same, the disk's own.
    None,
    /// Past the host's page cache, each write on the disk before it is answered; the guest sees no cache.
    DirectSync,
    /// Through the host's page cache, and flushes do nothing: for data that may be lost.
    Unsafe,
}

/// Who carries a disk's requests out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskEngine {
    /// The kernel, through io_uring; threads where the host refuses that.
    #[default]
    IoUring,
    /// A few threads.
    Threads,
    /// The queue's own thread, one request after the other.
    Sync,
}

/// Whether the completions of a disk's requests are polled for, which keeps a processor busy for each queue with
/// requests under way. For `cache=none` or `directsync`, and the engine `io_uring`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskPolling {
    /// The host says when there are any.
    #[default]
    Off,
    /// Where the file and its device allow it.
    Auto,
    /// Or else the disk is not opened.
    On,
}

/// What becomes of a request that the host fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskErrorAction {
    /// It is an I/O error of the guest.
    #[default]
    Report,
    /// The machine is paused, and the request tried again when it is resumed.
    Stop,
    /// The guest is told that it succeeded.
    Ignore,
}
