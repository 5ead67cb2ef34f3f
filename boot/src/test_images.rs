//! Small ELF images and bzImages, made by the tests that load them.

use std::io::Write;
use std::path::Path;

use vm_memory::{Bytes, GuestAddress};

use crate::{Compression, GuestMemory};

/// A mebibyte.
pub const MIB: u64 = 1 << 20;
/// Where the images of the tests lie.
pub const KERNEL_ADDRESS: u64 = 0x100_0000;

/// Guest memory of this many bytes, all of it below the hole.
pub fn memory(bytes: u64) -> GuestMemory {
    let bytes = usize::try_from(bytes).unwrap();
    GuestMemory::from_ranges(&[(GuestAddress(0), bytes)]).unwrap()
}

/// Bytes of guest memory.
pub fn read(memory: &GuestMemory, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    memory
        .read_slice(&mut bytes, GuestAddress(address))
        .unwrap();
    bytes
}

/// A file with these contents.
pub fn file(contents: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents).unwrap();
    file
}

/// Writes a little-endian number into an image.
pub fn set(image: &mut [u8], offset: usize, value: u64, bytes: usize) {
    image[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
}

/// Bytes that do not compress to nothing and are not zero, different for each seed.
pub fn code(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|index| {
            if index % 3 == 0 {
                state = state.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            }
            (state >> 24) as u8 | 1
        })
        .collect()
}

/// What a program header says, and the bytes behind it.
pub struct TestSegment {
    pub kind: u32,
    pub offset: u64,
    pub address: u64,
    pub bytes: Vec<u8>,
    pub memory_bytes: u64,
}

/// An ELF image with these segments.
pub fn elf(entry: u64, segments: &[TestSegment]) -> Vec<u8> {
    let mut image = vec![0; 64 + 56 * segments.len()];
    image[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    set(&mut image, 0x10, 2, 2);
    set(&mut image, 0x12, 62, 2);
    set(&mut image, 0x14, 1, 4);
    set(&mut image, 0x18, entry, 8);
    set(&mut image, 0x20, 64, 8);
    set(&mut image, 0x34, 64, 2);
    set(&mut image, 0x36, 56, 2);
    set(&mut image, 0x38, segments.len() as u64, 2);
    for (index, segment) in segments.iter().enumerate() {
        let header = 64 + 56 * index;
        set(&mut image, header, segment.kind.into(), 4);
        set(&mut image, header + 8, segment.offset, 8);
        set(&mut image, header + 0x10, segment.address, 8);
        set(&mut image, header + 0x18, segment.address, 8);
        set(&mut image, header + 0x20, segment.bytes.len() as u64, 8);
        set(&mut image, header + 0x28, segment.memory_bytes, 8);
        set(&mut image, header + 0x30, 4, 8);
        let start = usize::try_from(segment.offset).unwrap();
        let end = start + segment.bytes.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(&segment.bytes);
    }
    image
}

/// A segment to load.
pub fn load_segment(offset: u64, address: u64, bytes: Vec<u8>) -> TestSegment {
    TestSegment {
        kind: 1,
        offset,
        address,
        memory_bytes: bytes.len() as u64,
        bytes,
    }
}

/// A segment of notes: one of somebody else's, then the PVH entry.
pub fn pvh_note(offset: u64, entry: u32) -> TestSegment {
    let mut bytes = Vec::new();
    for (name, kind, description) in [
        (&b"Linux\0\0\0"[..], 0x100, &[1, 2, 3, 4, 5, 0, 0, 0][..]),
        (b"Xen\0", 18, &entry.to_le_bytes()),
    ] {
        let lengths = if kind == 18 { [4, 4, 18] } else { [6, 5, kind] };
        for word in lengths {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(description);
    }
    TestSegment {
        kind: 4,
        offset,
        address: 0,
        memory_bytes: 0,
        bytes,
    }
}

/// A kernel of two segments, with a page of zeros in the first and memory behind the second.
pub fn kernel(pvh: bool) -> Vec<u8> {
    let mut text = code(3 * 4096 + 17, 1);
    text[4096..8192].fill(0);
    let mut data = load_segment(0x6000, KERNEL_ADDRESS + 0x10_0000, code(5000, 2));
    data.memory_bytes = 0x8000;
    let mut segments = vec![load_segment(0x1000, KERNEL_ADDRESS, text), data];
    if pvh {
        let entry = u32::try_from(KERNEL_ADDRESS + 0x40).unwrap();
        segments.push(pvh_note(0x8000, entry));
    }
    elf(KERNEL_ADDRESS + 8, &segments)
}

/// Packs as Linux's build does, with the size at the end.
pub fn pack(compression: Compression, image: &[u8]) -> Vec<u8> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let lzma = |stream: Stream| {
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(image).unwrap();
        encoder.finish().unwrap()
    };
    let mut packed = match compression {
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(image).unwrap();
            return encoder.finish().unwrap();
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(9));
            encoder.write_all(image).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Lzma => {
            let options = LzmaOptions::new_preset(6).unwrap();
            lzma(Stream::new_lzma_encoder(&options).unwrap())
        }
        Compression::Xz => {
            let mut filters = Filters::new();
            filters.x86().lzma2(&LzmaOptions::new_preset(6).unwrap());
            lzma(Stream::new_stream_encoder(&filters, Check::Crc32).unwrap())
        }
        Compression::Lz4 => {
            let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
            for block in image.chunks(8 << 20) {
                let block = lz4_flex::block::compress(block);
                packed.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
                packed.extend_from_slice(&block);
            }
            packed
        }
        Compression::Zstd => zstd::bulk::compress(image, 3).unwrap(),
        Compression::Stored => image.to_vec(),
        Compression::Unknown => [b"\x89LZO".as_slice(), image].concat(),
    };
    packed.extend_from_slice(&u32::try_from(image.len()).unwrap().to_le_bytes());
    packed
}

/// Offset of the protected-mode code in the bzImages of the tests.
pub const CODE_OFFSET: usize = 5 * 512;
/// Offset of the payload in the protected-mode code.
pub const PAYLOAD_OFFSET: usize = 0x400;
/// What the bzImages of the tests want for themselves.
pub const INIT_SIZE: u64 = 4 * MIB;

/// A bzImage around a payload.
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; CODE_OFFSET];
    image.extend_from_slice(&code(PAYLOAD_OFFSET, 3));
    image.extend_from_slice(payload);
    image.resize(image.len().next_multiple_of(16), 0);
    let paragraphs = (image.len() - CODE_OFFSET) / 16;
    image[0x1f1] = 4;
    set(&mut image, 0x1f4, paragraphs as u64, 4);
    set(&mut image, 0x1fe, 0xaa55, 2);
    set(&mut image, 0x200, 0x6aeb, 2);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    set(&mut image, 0x206, 0x20f, 2);
    image[0x211] = 1;
    set(&mut image, 0x22c, 0x7fff_ffff, 4);
    set(&mut image, 0x230, 0x20_0000, 4);
    image[0x234] = 1;
    set(&mut image, 0x236, 0x3f, 2);
    set(&mut image, 0x238, 1000, 4);
    set(&mut image, 0x248, PAYLOAD_OFFSET as u64, 4);
    set(&mut image, 0x24c, payload.len() as u64, 4);
    set(&mut image, 0x258, KERNEL_ADDRESS, 8);
    set(&mut image, 0x260, INIT_SIZE, 4);
    image
}

/// Opens, as the user asked for it.
pub fn open(
    contents: &[u8],
    unpack: crate::Unpack,
) -> Result<crate::KernelFile, crate::KernelError> {
    let file = file(contents);
    let path: &Path = file.path();
    crate::KernelFile::open(path, unpack)
}

/// All ways to pack that are unpacked here.
pub const PACKED: [Compression; 7] = [
    Compression::Stored,
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Lzma,
    Compression::Xz,
    Compression::Lz4,
    Compression::Zstd,
];
