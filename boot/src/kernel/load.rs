//! A recognised kernel into guest memory.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use arch::layout;
use arch::memory_map::MemoryMap;
use linux_loader::bootparam::setup_header;
use vm_memory::GuestAddress;

use super::{Image, KernelError, KernelFile, KernelProblem, Unpack};
use crate::bzimage::{BzImage, Payload};
use crate::elf::{ElfError, ElfHeader, ElfImage, What};
use crate::image::{self, ImageLayout, write_fresh};
use crate::payload::{self, PayloadError};
use crate::zero_page::header_of_vmlinux;
use crate::{GuestMemory, parallel, placement};

/// Offset of the 64-bit entry in the protected-mode code of a bzImage.
const ENTRY_64_OFFSET: u64 = 0x200;
/// What one thread reads of an ELF file: below this no thread is started.
const PIECE_BYTES: u64 = 8 << 20;
/// What is read at a time: it stays in a CPU's own cache until it is copied.
const BUFFER_BYTES: u64 = 256 << 10;

/// A kernel that is in memory.
#[derive(Debug)]
pub(crate) struct LoadedKernel {
    /// How it is entered.
    pub protocol: Protocol,
    /// The addresses that it needs until it has read its memory map.
    pub extent: Range<u64>,
    /// Last address that an initrd may have, where the kernel says so.
    pub initrd_address_maximum: u64,
}

/// How a kernel is entered.
#[derive(Debug)]
pub(crate) enum Protocol {
    /// By PVH.
    Pvh { entry: u32 },
    /// By Linux's 64-bit boot protocol, with this header for the zero page.
    Linux64 {
        entry: u64,
        header: Box<setup_header>,
    },
}

impl KernelFile {
    /// Loads the kernel into fresh memory.
    pub(crate) fn load(
        &self,
        memory: &GuestMemory,
        map: &MemoryMap,
    ) -> Result<LoadedKernel, KernelError> {
        match &self.image {
            Image::Elf { elf, pvh_entry } => load_elf(&self.file, elf, *pvh_entry, memory, map),
            Image::BzImage(image) => self.load_bzimage(image, memory, map),
        }
        .map_err(|problem| KernelError {
            path: self.path.clone(),
            problem,
        })
    }

    fn load_bzimage(
        &self,
        image: &BzImage,
        memory: &GuestMemory,
        map: &MemoryMap,
    ) -> Result<LoadedKernel, KernelProblem> {
        if self.unpack == Unpack::Auto
            && let Some(payload) = &image.payload
        {
            match load_payload(&self.file, image, payload, memory, map) {
                Err(KernelProblem::Payload(error)) if error.is_for_guest() => {
                    let path = self.path.display();
                    tracing::info!("kernel {path}: {error}; the guest unpacks it");
                }
                result => return result,
            }
        }
        load_packed(&self.file, image, memory, map)
    }
}

/// An ELF image straight from its file.
fn load_elf(
    file: &File,
    elf: &ElfImage,
    pvh_entry: Option<u32>,
    memory: &GuestMemory,
    map: &MemoryMap,
) -> Result<LoadedKernel, KernelProblem> {
    let extent = placement::check_segments(&elf.segments, map)?;
    let parts = elf
        .segments
        .iter()
        .map(|segment| (segment.file.clone(), segment.address));
    copy(file, parts, memory)?;
    let header = header_of_vmlinux();
    let protocol = match pvh_entry {
        Some(entry) => Protocol::Pvh { entry },
        None => Protocol::Linux64 {
            entry: elf.entry,
            header: Box::new(header),
        },
    };
    Ok(LoadedKernel {
        initrd_address_maximum: match protocol {
            Protocol::Pvh { .. } => layout::LOW_RAM_END,
            Protocol::Linux64 { .. } => header.initrd_addr_max.into(),
        },
        protocol,
        extent,
    })
}

/// The ELF image out of a bzImage's payload.
fn load_payload(
    file: &File,
    image: &BzImage,
    payload: &Payload,
    memory: &GuestMemory,
    map: &MemoryMap,
) -> Result<LoadedKernel, KernelProblem> {
    let unpacked_bytes = u64::from(payload.unpacked_bytes);
    if unpacked_bytes > map.size_bytes() {
        return Err(PayloadError::TooLarge {
            unpacked_bytes,
            memory_bytes: map.size_bytes(),
            offset: payload.file.end.saturating_sub(4),
        }
        .into());
    }
    let begin = |head: &[u8]| {
        let header = ElfHeader::parse(head, unpacked_bytes)?;
        let table = image::bytes_at(head, &header.table()).ok_or(ElfError::Truncated {
            what: What::ProgramHeaders,
            end: header.table().end,
            length: unpacked_bytes,
        })?;
        let elf = header.program_headers(table, unpacked_bytes)?;
        placement::check(&extent_of(&elf, image, map)?, map)?;
        Ok(ImageLayout::new(memory, elf))
    };
    let layout = payload::unpack(file, payload, &begin)?;
    let (elf, pvh_entry) = layout.finish().map_err(PayloadError::from)?;
    check_entry(&elf, pvh_entry).map_err(PayloadError::from)?;
    let protocol = match pvh_entry {
        Some(entry) => Protocol::Pvh { entry },
        None => Protocol::Linux64 {
            entry: elf.entry,
            header: Box::new(image.header),
        },
    };
    Ok(LoadedKernel {
        protocol,
        extent: extent_of(&elf, image, map).map_err(PayloadError::from)?,
        initrd_address_maximum: image.header.initrd_addr_max.into(),
    })
}

/// What the segments take, and what the header says that the kernel needs from its start on.
fn extent_of(
    elf: &ElfImage,
    image: &BzImage,
    map: &MemoryMap,
) -> Result<Range<u64>, placement::PlacementError> {
    let segments = placement::check_segments(&elf.segments, map)?;
    let needed = segments.start.saturating_add(image.header.init_size.into());
    Ok(segments.start..segments.end.max(needed))
}

/// The image as it is, for the guest to unpack: its protected-mode code where it wants to lie, else from
/// 1 MiB on.
fn load_packed(
    file: &File,
    image: &BzImage,
    memory: &GuestMemory,
    map: &MemoryMap,
) -> Result<LoadedKernel, KernelProblem> {
    let header = &image.header;
    let code_bytes = image.code.end.saturating_sub(image.code.start);
    let needed_bytes = code_bytes.max(header.init_size.into());
    let extent_at = |start: u64| start..start.saturating_add(needed_bytes);
    let mut extent = extent_at(header.pref_address);
    if let Err(error) = placement::check(&extent, map) {
        let alignment = u64::from(header.kernel_alignment);
        let lowest = layout::EXTENDED_START.checked_next_multiple_of(alignment);
        extent = extent_at(lowest.unwrap_or(u64::MAX));
        if header.relocatable_kernel == 0 || placement::check(&extent, map).is_err() {
            return Err(error.into());
        }
    }
    copy(
        file,
        [(image.code.clone(), extent.start)].into_iter(),
        memory,
    )?;
    let mut header = *header;
    // The address of the code, which a loader that moves it has to set.
    header.code32_start = u32::try_from(extent.start).unwrap_or(0);
    Ok(LoadedKernel {
        protocol: Protocol::Linux64 {
            entry: extent.start.saturating_add(ENTRY_64_OFFSET),
            header: Box::new(header),
        },
        extent,
        initrd_address_maximum: header.initrd_addr_max.into(),
    })
}

/// Checks that the entry which will be used is in what is loaded.
pub(super) fn check_entry(elf: &ElfImage, pvh_entry: Option<u32>) -> Result<(), ElfError> {
    let (what, entry) = match pvh_entry {
        Some(entry) => ("PVH entry", u64::from(entry)),
        None => ("entry", elf.entry),
    };
    if elf.holds(entry) {
        Ok(())
    } else {
        Err(ElfError::Entry { what, entry })
    }
}

/// A part of the file, and the address to which it belongs.
struct Piece {
    file: Range<u64>,
    address: u64,
}

/// Copies parts of the file to the addresses given with them.
fn copy(
    file: &File,
    parts: impl Iterator<Item = (Range<u64>, u64)>,
    memory: &GuestMemory,
) -> Result<(), KernelProblem> {
    let mut pieces = Vec::new();
    for (part, address) in parts {
        let mut start = part.start;
        while start < part.end {
            let end = start.saturating_add(PIECE_BYTES).min(part.end);
            let distance = start.saturating_sub(part.start);
            pieces.push(Piece {
                file: start..end,
                address: address.saturating_add(distance),
            });
            start = end;
        }
    }
    let copy_piece = |piece: &Piece, buffer: &mut Vec<u8>| {
        let Range { start, end } = piece.file;
        let mut offset = start;
        while offset < end {
            let length = BUFFER_BYTES.min(end.saturating_sub(offset));
            let length_bytes = usize::try_from(length).unwrap_or(0);
            if buffer.len() < length_bytes {
                *buffer = vec![0; length_bytes];
            }
            let bytes = buffer.get_mut(..length_bytes).unwrap_or_default();
            file.read_exact_at(bytes, offset)
                .map_err(|error| KernelProblem::Read { offset, error })?;
            let distance = offset.saturating_sub(start);
            let address = GuestAddress(piece.address.saturating_add(distance));
            write_fresh(memory, address, bytes)?;
            offset = offset.saturating_add(length);
        }
        Ok::<(), KernelProblem>(())
    };
    let total_bytes = pieces.iter().fold(0u64, |sum, piece| {
        sum.saturating_add(piece.file.end.saturating_sub(piece.file.start))
    });
    if total_bytes <= PIECE_BYTES {
        let mut buffer = Vec::new();
        return pieces
            .iter()
            .try_for_each(|piece| copy_piece(piece, &mut buffer));
    }
    parallel::for_each(pieces.len(), || {
        let mut buffer = Vec::new();
        let (pieces, copy_piece) = (&pieces, &copy_piece);
        move |index: usize| match pieces.get(index) {
            Some(piece) => copy_piece(piece, &mut buffer),
            None => Ok(()),
        }
    })
}
