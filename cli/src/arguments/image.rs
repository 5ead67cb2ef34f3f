//! The command line of `cuddy image`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use vmm::ImageFormat;
use vmm::config::ByteSize;

/// `cuddy image`.
#[derive(Debug, Args)]
pub struct Image {
    /// What to do with an image.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with an image.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image that reads as zeros, or as its backing file
    Create {
        /// The image to make; nothing may be there
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// Size of the disk, such as 8G; that of the backing file if left out
        size: Option<ByteSize>,
        /// What to make
        #[arg(long, value_name = "FORMAT", default_value = "raw")]
        format: StoredFormat,
        /// Clusters of a qcow2 image: a power of two from 512 to 2M [default: 64K]
        #[arg(long, value_name = "SIZE")]
        cluster_size: Option<ByteSize>,
        /// What shows where nothing has been written, relative to the image's folder
        #[arg(long, value_name = "FILE", requires = "backing_format")]
        backing: Option<PathBuf>,
        /// What the backing file is
        #[arg(long, value_name = "FORMAT", requires = "backing")]
        backing_format: Option<StoredFormat>,
    },
    /// Say what an image is
    Info {
        /// The image
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// What the image is
        #[arg(long, value_name = "FORMAT", default_value = "auto")]
        format: FormatName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Copy a disk into a new image, without what is zero
    Convert {
        /// The image to read
        #[arg(value_name = "SOURCE", value_hint = ValueHint::FilePath)]
        source: PathBuf,
        /// The image to make; nothing may be there
        #[arg(value_name = "TARGET", value_hint = ValueHint::FilePath)]
        target: PathBuf,
        /// What the source is; auto is not for a disk that a guest has written to as a raw one
        #[arg(long, value_name = "FORMAT", default_value = "raw")]
        from: FormatName,
        /// What to make
        #[arg(long, value_name = "FORMAT")]
        to: StoredFormat,
        /// Copy what this internal snapshot of a qcow2 image has, by its name or number
        #[arg(long, value_name = "NAME")]
        snapshot: Option<String>,
        /// Clusters of a qcow2 image: a power of two from 512 to 2M [default: 64K]
        #[arg(long, value_name = "SIZE")]
        cluster_size: Option<ByteSize>,
    },
    /// Look for what is wrong with a qcow2 image, and mend it
    #[command(after_help = CHECK_HELP)]
    Check {
        /// The image; nobody may be writing to it
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// Give lost space back (leaks), or mend also wrong reference counts and marks (all)
        #[arg(long, value_name = "WHAT")]
        repair: Option<RepairName>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List, take, go back to and delete the internal snapshots of a qcow2 image
    Snapshot {
        /// What to do
        #[command(subcommand)]
        command: SnapshotCommand,
    },
    /// Make the disk in an image larger
    Resize {
        /// The image
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// Its new size, such as 16G
        size: ByteSize,
        /// What the image is
        #[arg(long, value_name = "FORMAT", default_value = "raw")]
        format: StoredFormat,
    },
}

/// What the exit status of a check means.
const CHECK_HELP: &str = "Exit status:
  0  nothing is wrong, or not any more
  1  the image cannot be checked
  2  the image is damaged; or bad usage
  3  space is lost, and nothing is damaged";

/// What to do with internal snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Say which there are
    List {
        /// The image
        #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
        path: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Keep the disk as it is now
    Create(OneSnapshot),
    /// Make the disk what it was; what it is now is lost
    Apply(OneSnapshot),
    /// Give a snapshot up
    Delete(OneSnapshot),
}

/// A snapshot of an image.
#[derive(Debug, Args)]
pub struct OneSnapshot {
    /// The image; no machine may have it
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
    /// The snapshot's name, or number
    pub name: String,
}

/// What to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RepairName {
    /// Lost space
    Leaks,
    /// All that needs no guess
    All,
}

/// What an image can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoredFormat {
    /// The bytes of the disk
    Raw,
    /// A qcow2 image
    Qcow2,
}

/// What an image is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// The bytes of the disk
    Raw,
    /// A qcow2 image
    Qcow2,
    /// What its first bytes say
    Auto,
}

impl From<StoredFormat> for ImageFormat {
    fn from(format: StoredFormat) -> Self {
        match format {
            StoredFormat::Raw => Self::Raw,
            StoredFormat::Qcow2 => Self::Qcow2,
        }
    }
}

impl From<FormatName> for ImageFormat {
    fn from(format: FormatName) -> Self {
        match format {
            FormatName::Raw => Self::Raw,
            FormatName::Qcow2 => Self::Qcow2,
            FormatName::Auto => Self::Auto,
        }
    }
}
