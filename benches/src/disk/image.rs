//! The images: the same content in memory and on a real disk, raw and as qcow2.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vmm::ImageFormat;
use vmm::image::{self, CreateOptions};

use crate::Failure;

/// Larger than what processors keep of it, small enough for memory.
const IMAGE_MIB: usize = 256;

/// Where an image is, what it is, and how many queues its disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    /// A file in memory, through the page cache that it is; or else one on a disk, past the page cache.
    pub(super) in_memory: bool,
    pub(super) format: ImageFormat,
    pub(super) queues: u16,
}

const fn setting(in_memory: bool, format: ImageFormat, queues: u16) -> Setting {
    Setting {
        in_memory,
        format,
        queues,
    }
}

impl Setting {
    /// All that are measured.
    pub(super) const ALL: [Self; 6] = [
        setting(true, ImageFormat::Raw, 1),
        setting(false, ImageFormat::Raw, 1),
        setting(true, ImageFormat::Qcow2, 1),
        setting(false, ImageFormat::Qcow2, 1),
        setting(true, ImageFormat::Raw, 4),
        setting(false, ImageFormat::Raw, 4),
    ];

    pub(super) fn format_is_raw(self) -> bool {
        self.format == ImageFormat::Raw
    }

    /// For people.
    pub(super) fn title(self) -> String {
        let format = if self.format_is_raw() { "raw" } else { "qcow2" };
        let place = if self.in_memory {
            "tmpfs"
        } else {
            "file, O_DIRECT"
        };
        let queues = match self.queues {
            1 => "one queue".to_owned(),
            count => format!("{count} queues"),
        };
        format!("{format} on {place}, {queues}")
    }
}

/// Image files, removed when dropped.
#[derive(Debug)]
pub(super) struct Images {
    memory: TempDir,
    disk: TempDir,
}

impl Images {
    /// Makes all of them, every cluster with data.
    pub(super) fn make() -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        let beside = program.parent().ok_or("a program without a folder")?;
        let images = Self {
            memory: tempfile::tempdir_in("/dev/shm")?,
            disk: tempfile::tempdir_in(beside)?,
        };
        for folder in [images.memory.path(), images.disk.path()] {
            let raw = folder.join("disk.raw");
            let mut file = File::create(&raw)?;
            for chunk in 0..IMAGE_MIB {
                file.write_all(&vec![u8::try_from(chunk % 255)? + 1; 1 << 20])?;
            }
            let options = CreateOptions {
                format: ImageFormat::Qcow2,
                ..CreateOptions::default()
            };
            let qcow2 = folder.join("disk.qcow2");
            image::convert(&raw, ImageFormat::Raw, &qcow2, &options)?;
            File::open(&raw)?.sync_all()?;
            File::open(&qcow2)?.sync_all()?;
        }
        Ok(images)
    }

    pub(super) fn path(&self, setting: Setting) -> PathBuf {
        let folder: &Path = match setting.in_memory {
            true => self.memory.path(),
            false => self.disk.path(),
        };
        folder.join(match setting.format_is_raw() {
            true => "disk.raw",
            false => "disk.qcow2",
        })
    }
}
