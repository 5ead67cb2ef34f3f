//! What the host lends a device that is attached to a running machine.

use std::sync::Arc;

use block::Disk;
use virtio::tap::Tap;

use super::disk::{DiskHandle, LentDisk};
use super::{disk_options, noted, open_tap};
use crate::config::{self, DiskConfig, NetConfig, Problems};

/// A device's file or interface, open for as long as it is attached, over restarts of the machine too.
#[derive(Debug)]
pub enum LentDevice {
    /// A disk.
    Disk {
        /// What it is to be.
        config: DiskConfig,
        /// Its image.
        disk: LentDisk,
    },
    /// A network interface.
    Net {
        /// What it is to be.
        config: NetConfig,
        /// Its interface of the host.
        tap: Arc<Tap>,
    },
}

impl LentDevice {
    /// A handle on the disk, if this is one.
    pub fn disk(&self) -> Option<DiskHandle> {
        match self {
            Self::Disk { disk, .. } => Some(disk.handle()),
            Self::Net { .. } => None,
        }
    }

    /// Opens the image of a disk.
    ///
    /// # Errors
    ///
    /// All that is wrong with the configuration, or why the image cannot be opened.
    pub fn open_disk(config: &DiskConfig) -> Result<Self, Problems> {
        let mut problems = config::disk_problems("disk", config);
        if problems.is_empty()
            && let Some(disk) = noted("disk", Disk::open(&disk_options(config)), &mut problems)
        {
            return Ok(Self::Disk {
                config: config.clone(),
                disk: LentDisk::new(disk),
            });
        }
        Err(Problems(problems))
    }

    /// Opens the host's side of a network interface.
    ///
    /// # Errors
    ///
    /// All that is wrong with the configuration, or why the interface cannot be opened.
    pub fn open_net(config: &NetConfig) -> Result<Self, Problems> {
        let mut problems = config::net_problems("net", config);
        if problems.is_empty()
            && let Some(tap) = noted("net", open_tap(config), &mut problems)
        {
            return Ok(Self::Net {
                config: config.clone(),
                tap: Arc::new(tap),
            });
        }
        Err(Problems(problems))
    }
}
