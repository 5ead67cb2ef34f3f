//! An image's file, as the library sees it: the file, but for a few fields of its header (QEMU,
//! docs/interop/qcow2, "Header").
//!
//! The library refuses what it does not know. Where that is done here instead, its fields are shown to it as
//! those of an image that it does know, and keep their values in the file whatever it writes there: the mark
//! of an image as not closed, the mark of one that is compressed with zstd, and the size of such a disk,
//! which it sees rounded up to whole clusters. A snapshot is shown as the disk.

use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use imago::file::File as HostFile;
use imago::io_buffers::{IoBuffer, IoVector, IoVectorMut};
use imago::storage::PreallocateMode;
use imago::storage::drivers::CommonStorageHelper;
use imago::{Storage, StorageExt, StorageOpenOptions};

use super::header::{
    COMPRESSION, COMPRESSION_TYPE, DIRTY, Header, INCOMPATIBLE, L1_ENTRIES, L1_TABLE, L1Table,
    SIZE, ZSTD,
};

/// Behind the last field that is shown otherwise.
const FIELDS_END: u64 = COMPRESSION_TYPE;

/// The file. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct ImageFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: HostFile,
    /// Set when the file is known to be used as an image, and not as a raw disk.
    fields: OnceLock<Fields>,
}

/// What is in the header, and what is shown in its place.
#[derive(Debug, Default)]
struct Fields {
    /// Incompatible features; none of these fields is there before version 3.
    features: Option<AtomicU64>,
    /// The disk's size, where it is shown rounded up.
    size_bytes: Option<AtomicU64>,
    shown: Vec<(u64, Vec<u8>)>,
}

impl ImageFile {
    fn new(file: HostFile) -> Self {
        let fields = OnceLock::new();
        Self {
            inner: Arc::new(Inner { file, fields }),
        }
    }

    /// From now on the library sees an image. `snapshot` is shown as its disk, with its size in bytes.
    pub(super) fn show(&self, header: &Header, writable: bool, snapshot: Option<(L1Table, u64)>) {
        let mut fields = Fields::default();
        let mut show = |at, bytes: &[u8]| fields.shown.push((at, bytes.to_vec()));
        let is_zstd = header.compression == ZSTD;
        if header.version > 2 {
            let hidden = DIRTY | if is_zstd { COMPRESSION } else { 0 };
            show(INCOMPATIBLE, &(header.incompatible & !hidden).to_be_bytes());
            fields.features = Some(AtomicU64::new(header.incompatible));
        }
        if let Some((l1, size_bytes)) = snapshot {
            let mut show = |at, bytes: &[u8]| fields.shown.push((at, bytes.to_vec()));
            show(L1_TABLE, &l1.offset.to_be_bytes());
            show(L1_ENTRIES, &l1.entries.to_be_bytes());
            show(SIZE, &size_bytes.to_be_bytes());
        } else if is_zstd && writable {
            let rounded = header
                .size_bytes
                .checked_next_multiple_of(header.cluster_bytes());
            let rounded = rounded.unwrap_or(header.size_bytes).to_be_bytes();
            fields.shown.push((SIZE, rounded.to_vec()));
            fields.size_bytes = Some(AtomicU64::new(header.size_bytes));
        }
        // It is opened once.
        let _shown_already = self.inner.fields.set(fields);
    }

    /// Marks the image in the file as not closed, or as closed. One of version 2 has no such mark.
    pub(super) fn set_dirty(&self, is_dirty: bool) -> io::Result<()> {
        let Some(features) = self.inner.fields.get().and_then(|it| it.features.as_ref()) else {
            return Ok(());
        };
        match is_dirty {
            true => features.fetch_or(DIRTY, Ordering::AcqRel),
            false => features.fetch_and(!DIRTY, Ordering::AcqRel),
        };
        // Whatever is written there.
        self.write(&[0; 8][..], INCOMPATIBLE)
    }

    /// The size that the disk has where the library sees it rounded up.
    pub(super) fn set_size(&self, size_bytes: u64) {
        if let Some(size) = self
            .inner
            .fields
            .get()
            .and_then(|it| it.size_bytes.as_ref())
        {
            size.store(size_bytes, Ordering::Release);
        }
    }

    /// Writes that size to the header.
    pub(super) fn write_size(&self) -> io::Result<()> {
        self.write(&[0; 8][..], SIZE)
    }

    fn fields(&self, offset: u64) -> Option<&Fields> {
        self.inner.fields.get().filter(|_| offset < FIELDS_END)
    }
}

impl Fields {
    /// Makes bytes of the file, from `offset` on, what is shown.
    fn show(&self, bytes: &mut [u8], offset: u64) {
        for (at, value) in &self.shown {
            overlay(bytes, offset, *at, value);
        }
    }

    /// Makes bytes that are to be written from `offset` on what the file keeps.
    fn keep(&self, bytes: &mut [u8], offset: u64) {
        for (at, value) in [(INCOMPATIBLE, &self.features), (SIZE, &self.size_bytes)] {
            if let Some(value) = value {
                let value = value.load(Ordering::Acquire).to_be_bytes();
                overlay(bytes, offset, at, &value);
            }
        }
    }
}

/// Puts `value`, which belongs at `at`, into `bytes`, which begin at `offset`, as far as they have it.
fn overlay(bytes: &mut [u8], offset: u64, at: u64, value: &[u8]) {
    for (place, &byte) in (at..).zip(value) {
        let index = place
            .checked_sub(offset)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(there) = index.and_then(|index| bytes.get_mut(index)) {
            *there = byte;
        }
    }
}

impl Display for ImageFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.file.fmt(formatter)
    }
}

impl Storage for ImageFile {
    fn open(options: StorageOpenOptions) -> io::Result<Self> {
        HostFile::open(options).map(Self::new)
    }

    fn mem_align(&self) -> usize {
        self.inner.file.mem_align()
    }

    fn req_align(&self) -> usize {
        self.inner.file.req_align()
    }

    fn zero_align(&self) -> usize {
        self.inner.file.zero_align()
    }

    fn discard_align(&self) -> usize {
        self.inner.file.discard_align()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.file.size()
    }

    fn resolve_relative_path<P: AsRef<Path>>(&self, relative: P) -> io::Result<PathBuf> {
        self.inner.file.resolve_relative_path(relative)
    }

    fn get_filename(&self) -> Option<PathBuf> {
        self.inner.file.get_filename()
    }

    unsafe fn pure_readv(&self, mut buffers: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let file = &self.inner.file;
        let Some(fields) = self.fields(offset) else {
            // SAFETY: what the caller promises of this request holds for the file.
            return unsafe { file.pure_readv(buffers, offset) };
        };
        let length = usize::try_from(buffers.len()).map_err(io::Error::other)?;
        let mut bytes = IoBuffer::new(length, file.mem_align())?;
        // SAFETY: the request is as long and begins where the caller's does, in memory that is aligned.
        unsafe { file.pure_readv(IoVectorMut::from(&mut bytes), offset) }?;
        let bytes = bytes.as_mut().into_slice();
        fields.show(bytes, offset);
        buffers.copy_from_slice(bytes);
        Ok(())
    }

    unsafe fn pure_writev(&self, buffers: IoVector<'_>, offset: u64) -> io::Result<()> {
        let file = &self.inner.file;
        let Some(fields) = self.fields(offset) else {
            // SAFETY: what the caller promises of this request holds for the file.
            return unsafe { file.pure_writev(buffers, offset) };
        };
        let mut bytes = buffers.try_into_owned(file.mem_align())?;
        fields.keep(bytes.as_mut().into_slice(), offset);
        // SAFETY: the request is as long and begins where the caller's does, in memory that is aligned.
        unsafe { file.pure_writev(IoVector::from(&bytes), offset) }
    }

    unsafe fn pure_write_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: what the caller promises of this request holds for the file.
        unsafe { self.inner.file.pure_write_zeroes(offset, length) }
    }

    unsafe fn pure_write_allocated_zeroes(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: what the caller promises of this request holds for the file.
        unsafe { self.inner.file.pure_write_allocated_zeroes(offset, length) }
    }

    unsafe fn pure_discard(&self, offset: u64, length: u64) -> io::Result<()> {
        // SAFETY: what the caller promises of this request holds for the file.
        unsafe { self.inner.file.pure_discard(offset, length) }
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.file.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.file.sync()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: what the caller promises holds for the file.
        unsafe { self.inner.file.invalidate_cache() }
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        self.inner.file.get_storage_helper()
    }

    fn resize(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.inner.file.resize(new_size, mode)
    }
}

#[cfg(test)]
mod tests;
