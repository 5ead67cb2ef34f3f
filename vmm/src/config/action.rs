//! What happens when a guest ends, in libvirt's words.

use serde::{Deserialize, Serialize};

/// What a machine does at the end of its guest's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The machine is taken apart and the process ends.
    #[default]
    Destroy,
    /// The machine is rebuilt and starts from its kernel again.
    Restart,
    /// The machine is kept as it is, its vCPUs stopped, until the process is told to end.
    Preserve,
}
