//! A kernel's file: opened, and recognised by what is in it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::bzimage::{self, BzImage, BzImageError, Payload, SIZE_BYTES};
use crate::command_line::LINUX_MAXIMUM_BYTES;
use crate::elf::{self, ElfError, ElfHeader, ElfImage};
use crate::initrd::{Refusal, open_regular};
use crate::payload::{Compression, PayloadError};
use crate::placement::PlacementError;
use crate::{foreign, image};

pub(crate) use load::{LoadedKernel, Protocol};

mod load;

/// What is read of each file to recognise it. All headers of a small ELF image are in it.
const HEAD_BYTES: usize = 4096;

/// Who unpacks the payload of a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// We do, which is several times faster than the guest's own code; the guest where we cannot.
    ///
    /// The kernel then runs at the addresses for which it was linked: only its own unpacking code can choose
    /// random ones (`CONFIG_RANDOMIZE_BASE`).
    #[default]
    Auto,
    /// The guest does, by the image's own 64-bit entry.
    Guest,
}

/// What a kernel's file was recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KernelFormat {
    /// An uncompressed ELF image, `vmlinux`.
    Elf {
        /// It has the note with the entry of PVH, by which it is then started.
        pvh: bool,
    },
    /// A bzImage, `vmlinuz`.
    BzImage {
        /// Version of the boot protocol, as in 0x020f for 2.15.
        protocol: u16,
        /// How its payload is packed.
        compression: Compression,
    },
}

/// Why a kernel cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct KernelError {
    /// The file, as the user named it.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: KernelProblem,
}

/// What can be wrong with a kernel.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum KernelProblem {
    /// Not there, no permission.
    #[error("{}", crate::initrd::cannot_open(.0))]
    Open(io::Error),
    /// A directory, a FIFO.
    #[error("it is {0}: give the vmlinux (ELF) or bzImage (vmlinuz) itself")]
    NotAFile(&'static str),
    /// No bytes.
    #[error("it is empty: copy or build it again")]
    Empty,
    /// The host failed, or the file shrank after it was opened.
    #[error("it cannot be read at offset {offset:#x}: {error}")]
    Read { offset: u64, error: io::Error },
    /// Something else.
    #[error("it is not a kernel but {what}: {advice}")]
    NotAKernel {
        what: &'static str,
        advice: &'static str,
    },
    /// A bad ELF image.
    #[error("{0}")]
    Elf(#[from] ElfError),
    /// A bad bzImage.
    #[error("{0}")]
    BzImage(#[from] BzImageError),
    /// What is packed in a bzImage is bad.
    #[error("{0}")]
    Payload(#[from] PayloadError),
    /// It does not fit into the machine.
    #[error("{0}")]
    Placement(#[from] PlacementError),
    /// Guest memory could not be written.
    #[error("guest memory cannot be written: {0}")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// A kernel: opened and recognised, nothing loaded. It can be loaded any number of times, each time from the
/// file that was opened, whatever its path names by then.
#[derive(Debug)]
pub struct KernelFile {
    path: PathBuf,
    file: File,
    unpack: Unpack,
    image: Image,
}

#[derive(Debug)]
enum Image {
    Elf {
        elf: ElfImage,
        pvh_entry: Option<u32>,
    },
    BzImage(BzImage),
}

impl KernelFile {
    /// Opens a file and recognises it by its contents.
    ///
    /// # Errors
    ///
    /// [`KernelError`] when it is not there, may not be read, is not a kernel for x86-64 or is damaged, as
    /// far as its headers show.
    pub fn open(path: &Path, unpack: Unpack) -> Result<Self, KernelError> {
        let error = |problem| KernelError {
            path: path.into(),
            problem,
        };
        let (file, length) = open_regular(path).map_err(|refusal| {
            error(match refusal {
                Refusal::Open(source) => KernelProblem::Open(source),
                Refusal::NotAFile(what) => KernelProblem::NotAFile(what),
            })
        })?;
        let image = recognise(&file, length).map_err(error)?;
        Ok(Self {
            path: path.into(),
            file,
            unpack,
            image,
        })
    }

    /// What the file is.
    pub fn format(&self) -> KernelFormat {
        match &self.image {
            Image::Elf { pvh_entry, .. } => KernelFormat::Elf {
                pvh: pvh_entry.is_some(),
            },
            Image::BzImage(image) => KernelFormat::BzImage {
                protocol: image.header.version,
                compression: image
                    .payload
                    .as_ref()
                    .map_or(Compression::Unknown, |payload| payload.compression),
            },
        }
    }

    /// The file, as the user named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The longest command line that the kernel takes, in bytes, without a terminating zero.
    pub fn command_line_maximum_bytes(&self) -> usize {
        match &self.image {
            Image::Elf { .. } => LINUX_MAXIMUM_BYTES,
            Image::BzImage(image) => {
                usize::try_from(image.header.cmdline_size).unwrap_or(usize::MAX)
            }
        }
    }
}

fn recognise(file: &File, length: u64) -> Result<Image, KernelProblem> {
    if length == 0 {
        return Err(KernelProblem::Empty);
    }
    let head = read(file, 0, length.min(HEAD_BYTES as u64))?;
    if head.starts_with(&elf::MAGIC) {
        recognise_elf(file, length, &head)
    } else if BzImage::recognise(&head) {
        let mut image = BzImage::parse(&head, length)?;
        image.payload = recognise_payload(file, length, &image)?;
        Ok(Image::BzImage(image))
    } else {
        let (what, advice) = foreign::describe(&head);
        Err(KernelProblem::NotAKernel { what, advice })
    }
}

fn recognise_elf(file: &File, length: u64, head: &[u8]) -> Result<Image, KernelProblem> {
    let header = ElfHeader::parse(head, length)?;
    let table = header.table();
    let elf = match image::bytes_at(head, &table) {
        Some(bytes) => header.program_headers(bytes, length)?,
        None => {
            let bytes = read(file, table.start, table.end.saturating_sub(table.start))?;
            header.program_headers(&bytes, length)?
        }
    };
    let mut pvh_entry = None;
    for note in &elf.notes {
        let range = &note.file;
        let found = match image::bytes_at(head, range) {
            Some(bytes) => elf::pvh_entry(note, bytes)?,
            None => {
                let bytes = read(file, range.start, range.end.saturating_sub(range.start))?;
                elf::pvh_entry(note, &bytes)?
            }
        };
        pvh_entry = pvh_entry.or(found);
    }
    load::check_entry(&elf, pvh_entry)?;
    Ok(Image::Elf { elf, pvh_entry })
}

fn recognise_payload(
    file: &File,
    length: u64,
    image: &BzImage,
) -> Result<Option<Payload>, KernelProblem> {
    let Some(range) = image.payload_range(length)? else {
        return Ok(None);
    };
    let start = read(
        file,
        range.start,
        8.min(range.end.saturating_sub(range.start)),
    )?;
    let end = read(file, range.end.saturating_sub(SIZE_BYTES), SIZE_BYTES)?;
    Ok(Some(Payload {
        compression: Compression::of(&start),
        unpacked_bytes: end
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes)),
        file: range,
    }))
}

/// Reads a part of a file. Callers bound `length`.
fn read(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, KernelProblem> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|error| KernelProblem::Read { offset, error })?;
    Ok(bytes)
}

const _: () = assert!(HEAD_BYTES >= bzimage::HEAD_BYTES && HEAD_BYTES >= elf::HEADER_BYTES);

#[cfg(test)]
mod tests;
