//! Making, describing and copying images, for people with a command line.
//!
//! Nothing of this is on a machine's way: it works on the calling thread and allocates as it likes.

mod header;
mod maintenance;
mod nameless;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder, Storage as _, StorageOpenOptions};

use crate::{
    Disk, DiskOptions, Engine, EngineKind, ImageFormat, IoBuffer, IoError, OpenError, Operation,
    ResizeError, SECTOR_BYTES, host, qcow2,
};
use header::Header;
pub use maintenance::{
    CheckReport, ImageFlaw, Repair, Snapshot, apply_snapshot, check, create_snapshot,
    delete_snapshot, snapshots,
};
use nameless::Nameless;

/// Bytes that are copied at a time; what is zero in all of them is left out.
const COPY_BYTES: usize = 1 << 20;
/// What is zero in so many bytes is left out of a copy.
const ZERO_GRAIN_BYTES: usize = 64 << 10;

/// Why nothing came of it: one line that says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A disk could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Something is there already.
    #[error("{}: it is there already; remove it first, or choose another name", path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// There is no size to be had.
    #[error("{}: how large? Give a size, a multiple of 512 bytes such as 8G, or a backing file", path.display())]
    NoSize {
        /// The path.
        path: PathBuf,
    },
    /// A raw image has nothing behind it and no clusters.
    #[error("{}: a raw image has no {what}; use --format qcow2", path.display())]
    RawHasNo {
        /// The path.
        path: PathBuf,
        /// What it does not have.
        what: &'static str,
    },
    /// It did not become larger.
    #[error("{}: cannot make it {size_bytes} bytes large: {source}", path.display())]
    Resize {
        /// The path.
        path: PathBuf,
        /// The size that was asked for.
        size_bytes: u64,
        /// What is against it.
        source: ResizeError,
    },
    /// A part could not be read or written.
    #[error("{}: cannot {what}: {source}", path.display())]
    Transfer {
        /// The path.
        path: PathBuf,
        /// What was tried, to be read after "cannot".
        what: &'static str,
        /// What is against it.
        source: IoError,
    },
    /// The host refused something.
    #[error("{}: cannot {what}: {source}", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// What was tried, to be read after "cannot".
        what: &'static str,
        /// What the host answered.
        source: io::Error,
    },
}

/// What an image is made with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// Raw or qcow2; [`ImageFormat::Auto`] is raw.
    pub format: ImageFormat,
    /// Size of the disk in bytes; that of the backing file where nothing is said.
    pub size_bytes: Option<u64>,
    /// Bytes of a cluster of a qcow2 image, a power of two from 512 to 2 MiB; 64 KiB where nothing is said.
    pub cluster_bytes: Option<u64>,
    /// What shows where nothing has been written; relative to the folder of the image.
    pub backing: Option<(PathBuf, ImageFormat)>,
}

/// What can be said of an image without reading its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// [`ImageFormat::Raw`] or [`ImageFormat::Qcow2`].
    pub format: ImageFormat,
    /// Size of the disk in bytes.
    pub size_bytes: u64,
    /// What the file takes on its file system, in bytes.
    pub allocated_bytes: u64,
    /// More of a qcow2 image.
    pub qcow2: Option<Qcow2Info>,
}

/// What the head of a qcow2 image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qcow2Info {
    /// 2 or 3.
    pub version: u32,
    /// Bytes of a cluster.
    pub cluster_bytes: u64,
    /// How compressed clusters are compressed: `zlib` or `zstd`.
    pub compression: &'static str,
    /// The file behind it, as it is written there.
    pub backing: Option<String>,
    /// That file's format, if it is written there.
    pub backing_format: Option<String>,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Reference counts are written late.
    pub lazy_refcounts: bool,
    /// Reference counts may be wrong: it is in use, or was not closed.
    pub dirty: bool,
    /// It is damaged, and said so itself.
    pub corrupt: bool,
}

/// Makes an image that reads as zeros, or as its backing file.
///
/// # Errors
///
/// [`ImageError`]; there is then nothing at `path` that was not there before.
pub fn create(path: &Path, options: &CreateOptions) -> Result<(), ImageError> {
    check_options(path, options)?;
    let backing_bytes = match &options.backing {
        Some((name, format)) => {
            let place = path.parent().unwrap_or(Path::new("")).join(name);
            let disk = open(&place, *format, true)?;
            Some(disk.sectors().saturating_mul(SECTOR_BYTES))
        }
        None => None,
    };
    let size_bytes = options
        .size_bytes
        .or(backing_bytes)
        .filter(|&size| size > 0 && size.is_multiple_of(SECTOR_BYTES))
        .ok_or_else(|| ImageError::NoSize {
            path: path.to_owned(),
        })?;
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let file = file.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ImageError::Exists {
            path: path.to_owned(),
        },
        _ => host_error(path, "make it", error),
    })?;
    fill(path, &file, size_bytes, options).map_err(|error| {
        // Half an image is of no use to anybody.
        let _nothing_to_be_done = fs::remove_file(path);
        host_error(path, "make it", error)
    })
}

/// Refuses what the format does not have.
fn check_options(path: &Path, options: &CreateOptions) -> Result<(), ImageError> {
    let is_qcow2 = options.format == ImageFormat::Qcow2;
    if !is_qcow2 && (options.backing.is_some() || options.cluster_bytes.is_some()) {
        let what = match options.backing {
            Some(_) => "backing file",
            None => "clusters",
        };
        return Err(ImageError::RawHasNo {
            path: path.to_owned(),
            what,
        });
    }
    Ok(())
}

/// Makes the new file at `path`, which is `file`, into an image.
fn fill(path: &Path, file: &File, size_bytes: u64, options: &CreateOptions) -> io::Result<()> {
    match options.format {
        ImageFormat::Qcow2 => format_qcow2(path, size_bytes, options),
        ImageFormat::Raw | ImageFormat::Auto => file.set_len(size_bytes),
    }
}

fn format_qcow2(path: &Path, size_bytes: u64, options: &CreateOptions) -> io::Result<()> {
    let storage = Storage::open(StorageOpenOptions::new().filename(path).write(true))?;
    let mut builder = Qcow2::<Storage>::create_builder(storage).size(size_bytes);
    if let Some(cluster_bytes) = options.cluster_bytes {
        builder = builder.cluster_size(usize::try_from(cluster_bytes).unwrap_or(usize::MAX));
    }
    if let Some((name, format)) = &options.backing {
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::other("the name of the backing file is not UTF-8"))?;
        let format = match format {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw | ImageFormat::Auto => "raw",
        };
        builder = builder.backing(name.to_owned(), format.to_owned());
    }
    builder.create()?;
    File::open(path)?.sync_all()
}

/// Describes the image at `path`, also one that cannot be used.
///
/// # Errors
///
/// [`ImageError`] when it cannot be read.
pub fn info(path: &Path, format: ImageFormat) -> Result<ImageInfo, ImageError> {
    let failed = |what| move |error| host_error(path, what, error);
    let file = File::open(path).map_err(failed("open it"))?;
    let metadata = file.metadata().map_err(failed("look at it"))?;
    let is_qcow2 = match format {
        ImageFormat::Raw => false,
        ImageFormat::Qcow2 => true,
        ImageFormat::Auto => qcow2::has_magic(&file).map_err(failed("read it"))?,
    };
    let allocated_bytes = metadata.blocks().saturating_mul(512);
    if !is_qcow2 {
        return Ok(ImageInfo {
            format: ImageFormat::Raw,
            size_bytes: host::size_bytes(&file, &metadata).map_err(failed("find its size"))?,
            allocated_bytes,
            qcow2: None,
        });
    }
    let header = Header::read(&file).map_err(failed("read its head"))?;
    Ok(ImageInfo {
        format: ImageFormat::Qcow2,
        size_bytes: header.size_bytes,
        allocated_bytes,
        qcow2: Some(header.info),
    })
}

/// Copies the disk in `source` into a new image at `target`, in the format of `target_options`, which gives
/// no size. What is zero takes no space there. Returns the size in bytes.
///
/// # Errors
///
/// [`ImageError`]; there is then nothing at `target` that was not there before.
pub fn convert(
    source: &Path,
    source_format: ImageFormat,
    target: &Path,
    target_options: &CreateOptions,
) -> Result<u64, ImageError> {
    copy_of(&open(source, source_format, true)?, target, target_options)
}

/// As [`convert`], with the disk that an internal snapshot of the qcow2 image in `source` is.
///
/// # Errors
///
/// [`ImageError`]; there is then nothing at `target` that was not there before.
pub fn convert_snapshot(
    source: &Path,
    snapshot: &str,
    target: &Path,
    target_options: &CreateOptions,
) -> Result<u64, ImageError> {
    let options = DiskOptions {
        format: ImageFormat::Qcow2,
        readonly: true,
        snapshot: Some(snapshot.to_owned()),
        ..DiskOptions::new(source)
    };
    copy_of(&Disk::open(&options)?, target, target_options)
}

fn copy_of(from: &Disk, target: &Path, target_options: &CreateOptions) -> Result<u64, ImageError> {
    let size_bytes = from.sectors().saturating_mul(SECTOR_BYTES);
    let options = CreateOptions {
        size_bytes: Some(size_bytes),
        backing: None,
        ..target_options.clone()
    };
    check_options(target, &options)?;
    if target.exists() {
        return Err(ImageError::Exists {
            path: target.to_owned(),
        });
    }
    // Under its own name when it is complete: half a copy looks like a whole one. Best without a name until
    // then, so that nothing is left of it when this process is killed.
    match Nameless::new(target) {
        Some(copy) => copy.write(from, target, size_bytes, &options),
        None => write_under_another_name(from, target, size_bytes, &options),
    }?;
    Ok(size_bytes)
}

/// Where the file system knows no files without names.
fn write_under_another_name(
    from: &Disk,
    target: &Path,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<(), ImageError> {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    create(partial, options)?;
    let copied = open(partial, options.format, false)
        .and_then(|to| copy(from, &to, target, size_bytes))
        .and_then(|()| rename_to_new(partial, target).map_err(|error| naming(target, error)));
    if copied.is_err() {
        let _nothing_to_be_done = fs::remove_file(partial);
    }
    copied
}

/// What it means that a complete copy does not get its name.
fn naming(target: &Path, error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => ImageError::Exists {
            path: target.to_owned(),
        },
        _ => host_error(target, "make it", error),
    }
}

/// Gives the file at `from` the name `to`, which nobody has.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        from,
        rustix::fs::CWD,
        to,
        rustix::fs::RenameFlags::NOREPLACE,
    )?;
    File::open(folder_of(to))?.sync_all()
}

/// The folder in which `path` is.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// Makes the disk in the image at `path` larger.
///
/// # Errors
///
/// [`ImageError`]; the size is then as before.
pub fn resize(path: &Path, format: ImageFormat, size_bytes: u64) -> Result<(), ImageError> {
    let disk = open(path, format, false)?;
    disk.grow(size_bytes)
        .map(drop)
        .map_err(|source| ImageError::Resize {
            path: path.to_owned(),
            size_bytes,
            source,
        })
}

fn open(path: &Path, format: ImageFormat, readonly: bool) -> Result<Disk, ImageError> {
    let options = DiskOptions {
        format,
        readonly,
        ..DiskOptions::new(path)
    };
    Ok(Disk::open(&options)?)
}

/// Copies what is not zero; `target` is what `to` is called.
fn copy(from: &Disk, to: &Disk, target: &Path, size_bytes: u64) -> Result<(), ImageError> {
    let engine = |disk: &Disk, path: &Path| {
        disk.engine(EngineKind::Sync, 1)
            .map_err(|error| host_error(path, "use it", error))
    };
    let failed = |path: &Path, what| {
        let path = path.to_owned();
        move |source| ImageError::Transfer { path, what, source }
    };
    let (mut reader, mut writer) = (engine(from, from.path())?, engine(to, target)?);
    let mut memory = vec![0_u8; COPY_BYTES];
    let mut offset = 0_u64;
    while offset < size_bytes {
        let left = usize::try_from(size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(piece) = memory.get_mut(..left.min(COPY_BYTES)) else {
            break;
        };
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        transfer(&mut reader, offset, piece, false).map_err(failed(from.path(), "read it"))?;
        let mut at = offset;
        for grain in piece.chunks_mut(ZERO_GRAIN_BYTES) {
            let next = at.saturating_add(u64::try_from(grain.len()).unwrap_or(u64::MAX));
            if grain.iter().any(|&byte| byte != 0) {
                transfer(&mut writer, at, grain, true).map_err(failed(target, "write it"))?;
            }
            at = next;
        }
        offset = offset.saturating_add(length);
    }
    complete(&mut writer, Operation::Flush).map_err(failed(target, "write it to the disk"))
}

/// Reads or writes `bytes` at `offset`.
fn transfer(
    engine: &mut Engine,
    offset: u64,
    bytes: &mut [u8],
    is_write: bool,
) -> Result<(), IoError> {
    // SAFETY: the bytes are borrowed mutably until the request has completed, below.
    let buffers = &[unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }];
    let sector = offset / SECTOR_BYTES;
    let operation = match is_write {
        true => Operation::Write {
            sector,
            buffers,
            durable: false,
        },
        false => Operation::Read { sector, buffers },
    };
    complete(engine, operation)
}

fn complete(engine: &mut Engine, operation: Operation<'_>) -> Result<(), IoError> {
    engine.submit(0, operation);
    engine.drain()?;
    engine
        .next_completion()
        .map_or(Ok(()), |completion| completion.result)
}

fn host_error(path: &Path, what: &'static str, source: io::Error) -> ImageError {
    ImageError::Host {
        path: path.to_owned(),
        what,
        source,
    }
}
