//! What the host says of a file: sizes, alignments, and what it can do with it.

use std::fs::{self, File, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};
use vmm_sys_util::{ioctl_io_nr, ioctl_ior_nr};

use crate::SECTOR_BYTES;
use crate::disk::Topology;

/// linux/fs.h.
const BLOCK_IOCTL: libc::c_uint = 0x12;
ioctl_io_nr!(BLKDISCARD, BLOCK_IOCTL, 119);
ioctl_io_nr!(BLKZEROOUT, BLOCK_IOCTL, 127);
ioctl_io_nr!(BLKSSZGET, BLOCK_IOCTL, 104);
ioctl_io_nr!(BLKIOMIN, BLOCK_IOCTL, 120);
ioctl_io_nr!(BLKIOOPT, BLOCK_IOCTL, 121);
ioctl_io_nr!(BLKALIGNOFF, BLOCK_IOCTL, 122);
ioctl_io_nr!(BLKPBSZGET, BLOCK_IOCTL, 123);
ioctl_ior_nr!(BLKGETSIZE64, BLOCK_IOCTL, 114, libc::size_t);

/// Alignment that O_DIRECT is taken to need where the host does not say: that of any disk, 4 KiB.
const CAUTIOUS_ALIGNMENT: u32 = 4096;

/// linux/magic.h.
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6;

/// What O_DIRECT needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectAlignment {
    /// Of each address in memory.
    pub memory: u32,
    /// Of the position in the file and of each length.
    pub offset: u32,
}

/// Size in bytes of a file or a block device.
pub(crate) fn size_bytes(file: &File, metadata: &Metadata) -> io::Result<u64> {
    if !metadata.file_type().is_block_device() {
        return Ok(metadata.len());
    }
    let mut size = 0_u64;
    // SAFETY: this ioctl writes 8 bytes, which `size` has.
    let result = unsafe { ioctl_with_mut_ref(file, BLKGETSIZE64(), &mut size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(size)
}

/// Block sizes and the like, as far as the host says.
pub(crate) fn topology(file: &File, metadata: &Metadata) -> Topology {
    let block_bytes = u32::try_from(metadata.blksize()).unwrap_or(CAUTIOUS_ALIGNMENT);
    if metadata.file_type().is_block_device() {
        let logical = device_value(file, BLKSSZGET()).unwrap_or(512).max(512);
        let granularity = queue_attribute(metadata.rdev(), "discard_granularity").unwrap_or(0);
        return Topology {
            logical_block_bytes: logical,
            physical_block_bytes: device_value(file, BLKPBSZGET()).unwrap_or(0).max(logical),
            alignment_offset_bytes: device_value(file, BLKALIGNOFF())
                .filter(|&offset| offset != u32::MAX)
                .unwrap_or(0),
            minimum_io_bytes: device_value(file, BLKIOMIN()).unwrap_or(0).max(logical),
            optimal_io_bytes: device_value(file, BLKIOOPT()).unwrap_or(0),
            discard_granularity_bytes: granularity.max(logical),
        };
    }
    // A file has 512-byte sectors whatever is below it: its partition table counts in them.
    let physical = block_bytes.clamp(512, 64 * 1024);
    Topology {
        logical_block_bytes: 512,
        physical_block_bytes: physical,
        alignment_offset_bytes: 0,
        minimum_io_bytes: physical,
        optimal_io_bytes: 0,
        discard_granularity_bytes: physical,
    }
}

/// What O_DIRECT needs for this file, or `None` where the host says that it cannot be had.
pub(crate) fn direct_alignment(file: &File, metadata: &Metadata) -> Option<DirectAlignment> {
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty string, and `answer` has room for the structure.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    // SAFETY: zeros are a valid statx structure, and the call only writes valid ones.
    let answer = unsafe { answer.assume_init() };
    if result == 0 && answer.stx_mask & libc::STATX_DIOALIGN != 0 {
        let (memory, offset) = (answer.stx_dio_mem_align, answer.stx_dio_offset_align);
        if memory == 0 || offset == 0 {
            return None;
        }
        return Some(DirectAlignment { memory, offset });
    }
    let cautious = if metadata.file_type().is_block_device() {
        device_value(file, BLKSSZGET()).unwrap_or(CAUTIOUS_ALIGNMENT)
    } else {
        CAUTIOUS_ALIGNMENT
    };
    Some(DirectAlignment {
        memory: cautious,
        offset: cautious,
    })
}

/// Whether the file is in memory: nothing on it waits for a disk, unless the host swaps.
pub(crate) fn is_in_memory(file: &File) -> bool {
    let mut answer = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the file is open, and `answer` has room for the structure.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), answer.as_mut_ptr()) };
    // SAFETY: zeros are a valid statfs structure, and the call only writes valid ones.
    let answer = unsafe { answer.assume_init() };
    result == 0 && [libc::TMPFS_MAGIC, RAMFS_MAGIC].contains(&answer.f_type)
}

/// Whether sectors can be discarded. Nothing is changed by asking.
pub(crate) fn can_discard(file: &File, metadata: &Metadata, size_bytes: u64) -> bool {
    if metadata.file_type().is_block_device() {
        return queue_attribute(metadata.rdev(), "discard_max_bytes").is_some_and(|most| most > 0);
    }
    // A hole behind the end of the file is none.
    punch_hole(file, size_bytes, SECTOR_BYTES).is_ok()
}

/// What a device says of its queues (Linux, Documentation/ABI/stable/sysfs-block).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueLimits {
    /// Completions can be polled for.
    pub polls: bool,
    /// The largest request that it gets in one piece.
    pub max_bytes: u64,
    /// The most pieces of memory of such a request.
    pub max_segments: u32,
    /// Requests are cut at multiples of something, or it is made of other devices, which have their own limits.
    pub cuts: bool,
}

/// What the device on which the file is, or which it is, says of its queues; `None` where there is no such device.
pub(crate) fn queue_limits(metadata: &Metadata) -> Option<QueueLimits> {
    let device = match metadata.file_type().is_block_device() {
        true => metadata.rdev(),
        false => metadata.dev(),
    };
    let attribute = |name| queue_attribute(device, name);
    let slaves = |path| fs::read_dir(device_directory(device).join(path)).ok();
    let stacked = slaves("slaves").or_else(|| slaves("../slaves"))?.count() > 0;
    Some(QueueLimits {
        polls: attribute("io_poll")? != 0,
        max_bytes: u64::from(attribute("max_sectors_kb")?).saturating_mul(1024),
        max_segments: attribute("max_segments")?,
        cuts: stacked || attribute("chunk_sectors").unwrap_or(0) != 0,
    })
}

/// Gives the file's blocks back; they read as zeros.
pub(crate) fn punch_hole(file: &File, offset: u64, length: u64) -> io::Result<()> {
    fallocate(
        file,
        libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        offset,
        length,
    )
}

/// Makes the file read as zeros there, its blocks kept.
pub(crate) fn zero_range(file: &File, offset: u64, length: u64) -> io::Result<()> {
    fallocate(
        file,
        libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE,
        offset,
        length,
    )
}

/// Tells a block device that these bytes are not needed.
pub(crate) fn discard_device(file: &File, offset: u64, length: u64) -> io::Result<()> {
    device_range(file, BLKDISCARD(), offset, length)
}

/// Makes a block device read as zeros there; the host writes zeros where the device cannot.
pub(crate) fn zero_device(file: &File, offset: u64, length: u64) -> io::Result<()> {
    device_range(file, BLKZEROOUT(), offset, length)
}

/// `fdatasync`: what was written is on the medium, with what is needed to find it.
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    retry(|| file.sync_data())
}

/// Repeats what a signal interrupted.
pub(crate) fn retry<T>(mut action: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match action() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, length: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = libc::off64_t::try_from(offset).map_err(too_large)?;
    let length = libc::off64_t::try_from(length).map_err(too_large)?;
    retry(|| {
        // SAFETY: the file is open; no memory is involved.
        match unsafe { libc::fallocate64(file.as_raw_fd(), mode, offset, length) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

fn device_range(file: &File, request: libc::c_ulong, offset: u64, length: u64) -> io::Result<()> {
    let range = [offset, length];
    retry(|| {
        // SAFETY: these ioctls read two 64-bit numbers, which `range` has.
        match unsafe { ioctl_with_ref(file, request, &range) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })
}

fn device_value(file: &File, request: libc::c_ulong) -> Option<u32> {
    let mut value = 0_u32;
    // SAFETY: the ioctls for which this is used write 4 bytes, which `value` has.
    let result = unsafe { ioctl_with_mut_ref(file, request, &mut value) };
    (result == 0).then_some(value)
}

fn device_directory(device: u64) -> PathBuf {
    let (major, minor) = (libc::major(device), libc::minor(device));
    Path::new("/sys/dev/block").join(format!("{major}:{minor}"))
}

/// A number from the request queue of a block device in sysfs; for a partition, of its disk.
fn queue_attribute(device: u64, name: &str) -> Option<u32> {
    let directory = device_directory(device);
    let read = |path: &str| fs::read_to_string(directory.join(path).join(name)).ok();
    let text = read("queue").or_else(|| read("../queue"))?;
    let value: u64 = text.trim().parse().ok()?;
    Some(u32::try_from(value).unwrap_or(u32::MAX))
}
