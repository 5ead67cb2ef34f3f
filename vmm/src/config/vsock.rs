//! A socket device.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use virtio::devices::vsock::Vsock;

/// A virtio socket device on a unix socket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VsockConfig {
    /// The guest's context identifier: 3 to 4294967294.
    pub cid: u32,
    /// The unix socket on which clients of the host ask for ports of the guest. Servers of the host listen
    /// beside it, on paths that end in `_PORT`.
    pub socket: PathBuf,
    /// How many connections there can be at a time: 1 to 1024.
    #[serde(default = "default_connections")]
    pub connections: u16,
}

impl VsockConfig {
    /// A device for the guest `cid` on the socket at `socket`.
    pub fn new(cid: u32, socket: impl Into<PathBuf>) -> Self {
        Self {
            cid,
            socket: socket.into(),
            connections: default_connections(),
        }
    }
}

const fn default_connections() -> u16 {
    Vsock::CONNECTIONS_DEFAULT
}
