//! ELF kernels: header, program headers and the note that names the PVH entry (System V gABI, chapters 4
//! and 5; Xen public/elfnote.h).
//!
//! Everything is checked against the image's length here; where the segments may lie in memory is for
//! [`crate::placement`]. The structures are linux-loader's. Its loader is not used: it neither checks that
//! segments are apart and inside RAM nor can it be fed from a decoder, and its errors do not say where.

use std::ops::Range;

use linux_loader::elf::{
    EI_CLASS, EI_DATA, ELFDATA2LSB, EM_X86_64, ET_DYN, ET_EXEC, Elf64_Ehdr, Elf64_Phdr, PT_INTERP,
    PT_LOAD, PT_NOTE,
};
use vm_memory::ByteValued;

pub(crate) use notes::{NoteSegment, pvh_entry};

mod notes;

/// The four bytes with which an ELF file starts.
pub(crate) const MAGIC: [u8; 4] = *b"\x7fELF";
/// Bytes of the header of a 64-bit file.
pub(crate) const HEADER_BYTES: usize = size_of::<Elf64_Ehdr>();
const PROGRAM_HEADER_BYTES: u16 = 56;
const CLASS_64: u8 = 2;
/// Linux has five program headers. The cap bounds what a bad file makes us read.
const PROGRAM_HEADERS_MAXIMUM: u16 = 128;
/// Linux's notes take half a kilobyte. The cap bounds what a bad file makes us keep.
const NOTES_MAXIMUM_BYTES: u64 = 64 << 10;

/// Why an ELF image is not a kernel that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ElfError {
    /// The magic number is missing.
    #[error("it does not start with the ELF magic number")]
    NotElf,
    /// A 32-bit file.
    #[error(
        "it is a 32-bit ELF file (machine {machine}): use a 64-bit x86 kernel (CONFIG_64BIT=y)"
    )]
    Class32 { machine: MachineName },
    /// A class other than 32 or 64 bits.
    #[error(
        "its ELF header has the class {class} at offset 0x4, which does not exist: the file is damaged"
    )]
    Class { class: u8 },
    /// A big-endian file.
    #[error("it is a big-endian ELF file: use a kernel built for x86-64")]
    BigEndian,
    /// Another processor.
    #[error("it is an ELF file for {machine}: use a kernel built for x86-64")]
    Machine { machine: MachineName },
    /// An object file, a core dump.
    #[error(
        "it is {what}, not a linked kernel: use the vmlinux that the kernel's build links last"
    )]
    Type { what: &'static str },
    /// A program of an operating system.
    #[error("it is a program for an operating system (it names an interpreter), not a kernel")]
    Program,
    /// Something lies beyond the end of the file.
    #[error(
        "it is truncated: {what} ends at offset {end:#x}, but there are {length:#x} bytes: copy or build it again"
    )]
    Truncated { what: What, end: u64, length: u64 },
    /// A field of a header that no linker writes.
    #[error("its {what} {value:#x} at offset {offset:#x} is not valid: the file is damaged")]
    Field {
        what: &'static str,
        offset: u64,
        value: u64,
    },
    /// No segment to load.
    #[error("it has no segment to load: use the linked vmlinux, not a file of symbols")]
    NoSegments,
    /// The PVH note is there, but unusable.
    #[error(
        "its PVH entry note at offset {offset:#x} holds {length} bytes instead of a 32-bit address: the file is damaged"
    )]
    PvhNote { offset: u64, length: u32 },
    /// The entry is not in what is loaded.
    #[error(
        "its {what} {entry:#x} is in no segment that is loaded: the physical addresses that it was linked for are wrong"
    )]
    Entry { what: &'static str, entry: u64 },
}

/// A part of an image, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The ELF header.
    Header,
    /// The table of program headers.
    ProgramHeaders,
    /// The segment of the program header with this index.
    Segment(usize),
}

impl std::fmt::Display for What {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => formatter.write_str("the ELF header"),
            Self::ProgramHeaders => formatter.write_str("the table of program headers"),
            Self::Segment(index) => write!(formatter, "segment {index}"),
        }
    }
}

/// `e_machine`, shown by name where it is one that people have kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineName(pub u16);

impl std::fmt::Display for MachineName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            3 => formatter.write_str("i386"),
            8 => formatter.write_str("MIPS"),
            20 | 21 => formatter.write_str("PowerPC"),
            22 => formatter.write_str("S/390"),
            40 => formatter.write_str("ARM"),
            EM_X86_64 => formatter.write_str("x86-64"),
            183 => formatter.write_str("AArch64"),
            243 => formatter.write_str("RISC-V"),
            258 => formatter.write_str("LoongArch"),
            other => write!(formatter, "number {other}"),
        }
    }
}

/// A segment to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Index of its program header, for messages.
    pub index: usize,
    /// Where its bytes are in the image.
    pub file: Range<u64>,
    /// Guest-physical address.
    pub address: u64,
    /// Bytes in memory; what is more than in the image is zero.
    pub memory_bytes: u64,
}

impl Segment {
    /// First address after the segment. The sum was checked when the segment was read.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.memory_bytes)
    }
}

/// What the headers of an image say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ElfImage {
    /// `e_entry`.
    pub entry: u64,
    /// What is to be loaded, in the order of the program headers. Never empty.
    pub segments: Vec<Segment>,
    /// Where notes are.
    pub notes: Vec<NoteSegment>,
}

impl ElfImage {
    /// Whether a segment holds the address.
    pub fn holds(&self, address: u64) -> bool {
        self.segments
            .iter()
            .any(|segment| (segment.address..segment.end()).contains(&address))
    }
}

/// The header of an image: what is needed to find its program headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElfHeader {
    entry: u64,
    table_start: u64,
    count: u16,
}

impl ElfHeader {
    /// Reads the header in the first bytes of an image of `length` bytes.
    pub fn parse(head: &[u8], length: u64) -> Result<Self, ElfError> {
        if !head.starts_with(&MAGIC) {
            return Err(ElfError::NotElf);
        }
        let header = Elf64_Ehdr::read_exact_from(head).map_err(|_| ElfError::Truncated {
            what: What::Header,
            end: HEADER_BYTES as u64,
            length,
        })?;
        let [class, data] = [EI_CLASS, EI_DATA].map(|at| header.e_ident.get(at).copied());
        let machine = MachineName(header.e_machine);
        match class {
            Some(CLASS_64) => {}
            Some(1) => return Err(ElfError::Class32 { machine }),
            other => {
                return Err(ElfError::Class {
                    class: other.unwrap_or(0),
                });
            }
        }
        if data != Some(ELFDATA2LSB) {
            return Err(ElfError::BigEndian);
        }
        if header.e_machine != EM_X86_64 {
            return Err(ElfError::Machine { machine });
        }
        match header.e_type {
            ET_EXEC | ET_DYN => {}
            1 => {
                return Err(ElfError::Type {
                    what: "an object file",
                });
            }
            4 => {
                return Err(ElfError::Type {
                    what: "a core dump",
                });
            }
            other => {
                return Err(ElfError::Field {
                    what: "type",
                    offset: 0x10,
                    value: other.into(),
                });
            }
        }
        if header.e_phnum == 0 {
            return Err(ElfError::NoSegments);
        }
        if header.e_phentsize != PROGRAM_HEADER_BYTES {
            return Err(ElfError::Field {
                what: "size of a program header",
                offset: 0x36,
                value: header.e_phentsize.into(),
            });
        }
        if header.e_phnum > PROGRAM_HEADERS_MAXIMUM {
            return Err(ElfError::Field {
                what: "number of program headers",
                offset: 0x38,
                value: header.e_phnum.into(),
            });
        }
        let parsed = Self {
            entry: header.e_entry,
            table_start: header.e_phoff,
            count: header.e_phnum,
        };
        let end = parsed.table().end;
        if end > length {
            return Err(ElfError::Truncated {
                what: What::ProgramHeaders,
                end,
                length,
            });
        }
        Ok(parsed)
    }

    /// Where the program headers are in the image.
    pub fn table(&self) -> Range<u64> {
        let bytes = u64::from(self.count).saturating_mul(PROGRAM_HEADER_BYTES.into());
        self.table_start..self.table_start.saturating_add(bytes)
    }

    /// Reads the program headers; `table` holds the bytes of [`table`](Self::table).
    pub fn program_headers(&self, mut table: &[u8], length: u64) -> Result<ElfImage, ElfError> {
        let mut image = ElfImage {
            entry: self.entry,
            segments: Vec::new(),
            notes: Vec::new(),
        };
        for index in 0..usize::from(self.count) {
            // Reading from the slice moves it on to the next header.
            let header =
                Elf64_Phdr::read_exact_from(&mut table).map_err(|_| ElfError::Truncated {
                    what: What::ProgramHeaders,
                    end: self.table().end,
                    length,
                })?;
            let file = header.p_offset..header.p_offset.saturating_add(header.p_filesz);
            let inside = if file.end <= length {
                Ok(())
            } else {
                Err(ElfError::Truncated {
                    what: What::Segment(index),
                    end: file.end,
                    length,
                })
            };
            match header.p_type {
                PT_LOAD if header.p_memsz > 0 => {
                    inside?;
                    let field = |what, at: u64, value| ElfError::Field {
                        what,
                        offset: self.field_offset(index, at),
                        value,
                    };
                    if header.p_memsz < header.p_filesz {
                        return Err(field("segment's size in memory", 0x28, header.p_memsz));
                    }
                    if header.p_paddr.checked_add(header.p_memsz).is_none() {
                        return Err(field("segment's physical address", 0x18, header.p_paddr));
                    }
                    image.segments.push(Segment {
                        index,
                        file,
                        address: header.p_paddr,
                        memory_bytes: header.p_memsz,
                    });
                }
                PT_NOTE => {
                    inside?;
                    if header.p_filesz <= NOTES_MAXIMUM_BYTES {
                        image.notes.push(NoteSegment::new(file, header.p_align));
                    }
                }
                PT_INTERP => return Err(ElfError::Program),
                _ => {}
            }
        }
        if image.segments.is_empty() {
            return Err(ElfError::NoSegments);
        }
        Ok(image)
    }

    fn field_offset(&self, index: usize, at: u64) -> u64 {
        u64::try_from(index)
            .unwrap_or(u64::MAX)
            .saturating_mul(PROGRAM_HEADER_BYTES.into())
            .saturating_add(self.table_start)
            .saturating_add(at)
    }
}

#[cfg(test)]
mod tests;
