//! The payload of a bzImage: a packed ELF image, after which Linux puts relocations when it was built with
//! `CONFIG_RANDOMIZE_BASE`.
//!
//! The relocations are not used: the kernel is loaded at the physical addresses for which it was linked, as
//! its own unpacking code would do with `nokaslr`. A user who wants the addresses random lets the guest
//! unpack ([`crate::Unpack::Guest`]).
//!
//! What is decoded passes through small buffers and is laid over the image's segments; only zstd, which is
//! faster when it sees all of its output, has the whole image in memory for a moment.

use std::fs::File;
use std::io;

use vm_memory::GuestMemoryError;

use crate::bzimage::Payload;
use crate::elf::ElfError;
use crate::image::ImageLayout;
use crate::placement::PlacementError;

mod input;
mod lz4;
mod stream;
mod zstd;

/// How a payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Stored,
    /// `CONFIG_KERNEL_GZIP`.
    Gzip,
    /// `CONFIG_KERNEL_BZIP2`.
    Bzip2,
    /// `CONFIG_KERNEL_LZMA`.
    Lzma,
    /// `CONFIG_KERNEL_XZ`.
    Xz,
    /// `CONFIG_KERNEL_LZ4`: the legacy frame.
    Lz4,
    /// `CONFIG_KERNEL_ZSTD`.
    Zstd,
    /// In a way that is not known here; `CONFIG_KERNEL_LZO` for example.
    Unknown,
}

impl Compression {
    /// What the first bytes of a payload say.
    pub(crate) fn of(head: &[u8]) -> Self {
        const MAGIC: [(&[u8], Compression); 7] = [
            (b"\x7fELF", Compression::Stored),
            (b"\x1f\x8b", Compression::Gzip),
            (b"BZh", Compression::Bzip2),
            (b"\x5d\0\0", Compression::Lzma),
            (b"\xfd7zXZ\0", Compression::Xz),
            (&lz4::MAGIC, Compression::Lz4),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
        ];
        MAGIC
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Self::Unknown, |(_, compression)| *compression)
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Stored => "uncompressed",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "LZMA",
            Self::Xz => "xz",
            Self::Lz4 => "LZ4",
            Self::Zstd => "zstd",
            Self::Unknown => "unknown",
        })
    }
}

/// Why a payload cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum PayloadError {
    /// Nothing here decodes it.
    #[error(
        "its payload at offset {offset:#x} is packed in a way that is not known: let the guest unpack it"
    )]
    Unsupported { offset: u64 },
    /// The file could not be read.
    #[error("its payload cannot be read at offset {offset:#x}: {error}")]
    Read { offset: u64, error: io::Error },
    /// The data are damaged.
    #[error(
        "its {compression} payload is corrupt near offset {offset:#x} ({detail}): copy or build it again"
    )]
    Corrupt {
        compression: Compression,
        offset: u64,
        detail: String,
    },
    /// More than the machine can hold.
    #[error(
        "its payload unpacks to {unpacked_bytes} bytes, as its end at offset {offset:#x} says, but the machine has {memory_bytes}: give it more memory, or if that is absurd, copy or build the file again"
    )]
    TooLarge {
        unpacked_bytes: u64,
        memory_bytes: u64,
        offset: u64,
    },
    /// The host has no memory for the image.
    #[error("the host has no memory for the {bytes} bytes that its payload unpacks to")]
    HostMemory { bytes: u64 },
    /// What is packed is not a kernel.
    #[error("in its payload, {0}")]
    Elf(#[from] ElfError),
    /// The kernel in the payload does not fit into the machine.
    #[error("{0}")]
    Placement(#[from] PlacementError),
    /// Guest memory could not be written.
    #[error("guest memory cannot be written: {0}")]
    Memory(#[from] GuestMemoryError),
}

impl PayloadError {
    /// Whether the guest may be able to do what could not be done here. Nothing was written then.
    pub(crate) fn is_for_guest(&self) -> bool {
        matches!(self, Self::Unsupported { .. } | Self::Elf(ElfError::NotElf))
    }
}

/// Looks at the first bytes of the image, at least a few kilobytes if it has as many, and says where the
/// rest goes.
pub(crate) type Begin<'a, 'm> = dyn Fn(&[u8]) -> Result<ImageLayout<'m>, PayloadError> + Sync + 'a;

/// Unpacks the payload of the open file. `begin` is called once, before anything is placed.
pub(crate) fn unpack<'m>(
    file: &File,
    payload: &Payload,
    begin: &Begin<'_, 'm>,
) -> Result<ImageLayout<'m>, PayloadError> {
    match payload.compression {
        Compression::Lz4 => lz4::unpack(file, payload, begin),
        Compression::Zstd => zstd::unpack(file, payload, begin),
        Compression::Unknown => Err(PayloadError::Unsupported {
            offset: payload.file.start,
        }),
        _ => stream::unpack(file, payload, begin),
    }
}
