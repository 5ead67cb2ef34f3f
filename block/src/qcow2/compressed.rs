//! Clusters that are compressed with zstd (QEMU, docs/interop/qcow2, "Header", compression type, and
//! "Compressed Clusters Descriptor"; RFC 8878): the library knows zlib alone.
//!
//! It does all but to read such clusters: it says where they are in the disk, and where in the file is
//! looked up here. That stays right while somebody reads: a mapping of such a cluster is only ever replaced,
//! and whoever does that excludes readers ([`Qcow2Image`](super::Qcow2Image)).

use std::fmt::{self, Debug, Display};
use std::fs::File;
use std::io;

use imago::format::drivers::FormatDriverInstance;
use imago::format::{Format, PreallocateMode};
use imago::io_buffers::IoVectorMut;
use imago::{PreparedDataMapping, ShallowMapping};

use super::entry::{self, Mapping};
use super::header::{Header, ZSTD};
use super::image_file::ImageFile;
use super::medium::Medium;

/// Where the clusters are, as the tables had it when the image was opened.
#[derive(Debug)]
pub(super) struct ZstdClusters {
    file: File,
    header: Header,
    /// The first mapping table. It may be moved, and tables to which it leads copied; what these say of a
    /// compressed cluster holds for as long as it is one.
    l1: Vec<u64>,
}

impl ZstdClusters {
    /// Those of an image that has such; `l1` is the table of its disk or snapshot.
    pub(super) fn of(
        file: &File,
        header: &Header,
        l1: super::header::L1Table,
    ) -> io::Result<Option<Self>> {
        if header.compression != ZSTD {
            return Ok(None);
        }
        let length = usize::try_from(l1.entries).map_err(io::Error::other)?;
        let mut entries = vec![0; length];
        let medium = Medium::new(file)?;
        medium.for_each_entry(l1.offset, u64::from(l1.entries), |index, entry| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if let Some(place) = entries.get_mut(index) {
                *place = entry;
            }
        })?;
        Ok(Some(Self {
            file: file.try_clone()?,
            header: header.clone(),
            l1: entries,
        }))
    }

    /// Reads the disk from `offset` on, where all is in such clusters.
    fn read(&self, mut buffers: IoVectorMut<'_>, mut offset: u64) -> io::Result<()> {
        let bits = self.header.cluster_bits;
        let cluster_bytes =
            usize::try_from(self.header.cluster_bytes()).map_err(io::Error::other)?;
        let mut cluster = vec![0; cluster_bytes];
        while !buffers.is_empty() {
            self.unpack(offset.wrapping_shr(bits), &mut cluster)?;
            let begin = offset & self.header.cluster_bytes().wrapping_sub(1);
            let length = self.header.cluster_bytes().saturating_sub(begin);
            let length = length.min(buffers.len());
            let (mut here, rest) = buffers.split_at(length);
            let begin = usize::try_from(begin).map_err(io::Error::other)?;
            let end = begin.saturating_add(usize::try_from(length).map_err(io::Error::other)?);
            here.copy_from_slice(cluster.get(begin..end).unwrap_or_default());
            offset = offset.saturating_add(length);
            buffers = rest;
        }
        Ok(())
    }

    /// Unpacks a cluster of the disk.
    fn unpack(&self, guest_cluster: u64, into: &mut [u8]) -> io::Result<()> {
        let Some((offset, length)) = self.place(guest_cluster)? else {
            return Err(io::Error::other("a cluster is not compressed any more"));
        };
        // Counted in sectors, the last of which need not be there; at most two clusters.
        let mut packed = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        Medium::new(&self.file)?.read(offset, &mut packed)?;
        unpack(&packed, into).map_err(|error| {
            let what = format!("the compressed cluster at {offset:#x} of the file: {error}");
            io::Error::other(what)
        })
    }

    /// Where the cluster is in the file, and how long at most.
    fn place(&self, guest_cluster: u64) -> io::Result<Option<(u64, u64)>> {
        let Header {
            version,
            cluster_bits,
            ..
        } = self.header;
        // A table has eight bytes for each cluster.
        let table_bits = cluster_bits.saturating_sub(3);
        let l1_index = usize::try_from(guest_cluster.wrapping_shr(table_bits));
        let l1_entry = l1_index.ok().and_then(|index| self.l1.get(index).copied());
        let Some(table) = l1_entry.and_then(|entry| entry::l2_table(entry, cluster_bits)) else {
            return Ok(None);
        };
        let index = guest_cluster & 1_u64.wrapping_shl(table_bits).wrapping_sub(1);
        let mut bytes = [0; 8];
        let at = table.saturating_add(index.saturating_mul(8));
        Medium::new(&self.file)?.read(at, &mut bytes)?;
        let entry = u64::from_be_bytes(bytes);
        Ok(match entry::mapping(entry, version, cluster_bits) {
            Mapping::Compressed { offset, length } => Some((offset, length)),
            _ => None,
        })
    }
}

/// Unpacks one frame, behind which there may be anything, into exactly `into`. In one go, so that a frame
/// that asks for a large window gets none.
fn unpack(packed: &[u8], into: &mut [u8]) -> io::Result<()> {
    let length = zstd::zstd_safe::find_frame_compressed_size(packed)
        .map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
    let frame = packed.get(..length).unwrap_or(packed);
    let count = zstd::bulk::decompress_to_buffer(frame, into)?;
    match count == into.len() {
        true => Ok(()),
        false => Err(io::Error::other("it is too short")),
    }
}

/// An image with such clusters: as the library has it, but for reading them.
pub(super) struct ZstdImage<D> {
    pub inner: D,
    pub clusters: ZstdClusters,
}

impl<D: Debug> Debug for ZstdImage<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ZstdImage")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<D: Display> Display for ZstdImage<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl<D: FormatDriverInstance<Storage = ImageFile>> FormatDriverInstance for ZstdImage<D> {
    type Storage = ImageFile;

    fn format(&self) -> Format {
        self.inner.format()
    }

    unsafe fn probe(storage: &ImageFile) -> io::Result<bool> {
        // SAFETY: what the caller promises of the file holds for the format within.
        unsafe { D::probe(storage) }
    }

    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn zero_granularity(&self) -> Option<u64> {
        self.inner.zero_granularity()
    }

    fn collect_storage_dependencies(&self) -> Vec<&ImageFile> {
        self.inner.collect_storage_dependencies()
    }

    fn writable(&self) -> bool {
        self.inner.writable()
    }

    fn get_mapping<'a>(
        &'a self,
        offset: u64,
        max_length: u64,
    ) -> io::Result<(ShallowMapping<'a, ImageFile>, u64)> {
        self.inner.get_mapping(offset, max_length)
    }

    fn prepare_data_mapping<'a>(
        &'a self,
        offset: u64,
        length: u64,
        overwrite: bool,
    ) -> io::Result<PreparedDataMapping<'a, ImageFile>> {
        self.inner.prepare_data_mapping(offset, length, overwrite)
    }

    fn commit_data_mapping(&self, mapping: PreparedDataMapping<'_, ImageFile>) -> io::Result<()> {
        self.inner.commit_data_mapping(mapping)
    }

    fn ensure_zero_mapping(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        self.inner.ensure_zero_mapping(offset, length)
    }

    unsafe fn discard_to_zero_unsafe(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        // SAFETY: what the caller promises of mappings holds for those of the format within.
        unsafe { self.inner.discard_to_zero_unsafe(offset, length) }
    }

    unsafe fn discard_to_any_unsafe(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        // SAFETY: what the caller promises of mappings holds for those of the format within.
        unsafe { self.inner.discard_to_any_unsafe(offset, length) }
    }

    unsafe fn discard_to_backing_unsafe(&self, offset: u64, length: u64) -> io::Result<(u64, u64)> {
        // SAFETY: what the caller promises of mappings holds for those of the format within.
        unsafe { self.inner.discard_to_backing_unsafe(offset, length) }
    }

    fn readv_special(&self, buffers: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        self.clusters.read(buffers, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    unsafe fn invalidate_cache(&self) -> io::Result<()> {
        // SAFETY: what the caller promises of the file holds for the format within.
        unsafe { self.inner.invalidate_cache() }
    }

    fn resize_grow(&self, new_size: u64, mode: PreallocateMode) -> io::Result<()> {
        self.inner.resize_grow(new_size, mode)
    }

    fn resize_shrink(&mut self, new_size: u64) -> io::Result<()> {
        self.inner.resize_shrink(new_size)
    }
}

#[cfg(test)]
mod tests;
