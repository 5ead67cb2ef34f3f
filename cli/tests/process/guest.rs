//! Tiny kernels of a few instructions, as ELF files with a PVH note (Xen's pvh.h: entry in 32-bit
//! protected mode, flat segments, no paging).

use std::fs;
use std::path::PathBuf;

const LOAD_ADDRESS: u32 = 0x10_0000;
const CODE_OFFSET: u32 = 0x100;
const NOTE_OFFSET: u64 = 0xb0;
const NOTE_BYTES: u64 = 24;

/// `mov dx, port; mov al, value; out dx, al`
fn out_byte(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// `mov dx, port; mov ax, value; out dx, ax`
fn out_word(port: u16, value: u16) -> Vec<u8> {
    let [port_low, port_high] = port.to_le_bytes();
    let [low, high] = value.to_le_bytes();
    let mut code = vec![0x66, 0xba, port_low, port_high];
    code.extend([0x66, 0xb8, low, high, 0x66, 0xef]);
    code
}

/// Writes `text` on the first serial port.
pub fn say(text: &str) -> Vec<u8> {
    text.bytes()
        .flat_map(|byte| out_byte(0x3f8, byte))
        .collect()
}

/// Halts for ever: `cli; hlt; jmp -3`.
pub fn idle() -> Vec<u8> {
    vec![0xfa, 0xf4, 0xeb, 0xfd]
}

/// Turns the power off: S5 in the PM1 control register.
pub fn power_off() -> Vec<u8> {
    let sleep_type = u16::from(5u8) << 10;
    let sleep_enable = 1 << 13;
    [out_word(0x604, sleep_type | sleep_enable), idle()].concat()
}

/// Resets by the reset register.
pub fn reset() -> Vec<u8> {
    [out_byte(0xcf9, 6), idle()].concat()
}

/// Says through pvpanic that it has crashed.
pub fn crash() -> Vec<u8> {
    [out_byte(0x505, 1), idle()].concat()
}

/// Loads an empty interrupt table and raises an exception: `lidt [zeros]; ud2`.
pub fn triple_fault() -> Vec<u8> {
    let zeros = (LOAD_ADDRESS + 0xd0).to_le_bytes();
    [&[0x0f, 0x01, 0x1d][..], &zeros, &[0x0f, 0x0b]].concat()
}

/// Loads a binary-coded decimal number: `fbld [address]`.
pub fn load_decimal(address: u32) -> Vec<u8> {
    [&[0xdf, 0x25][..], &address.to_le_bytes()].concat()
}

/// Writes 'x' for ever: `mov dx, 0x3f8; mov al, 'x'; out dx, al; jmp -3`.
pub fn chatter() -> Vec<u8> {
    vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd]
}

/// Waits for a byte on the serial port and writes it back, for ever.
pub fn echo() -> Vec<u8> {
    vec![
        0x66, 0xba, 0xfd, 0x03, // mov dx, line status
        0xec, // in al, dx
        0xa8, 0x01, // test al, data ready
        0x74, 0xfb, // jz -5
        0x66, 0xba, 0xf8, 0x03, // mov dx, data
        0xec, // in al, dx
        0xee, // out dx, al
        0xeb, 0xef, // jmp to the beginning
    ]
}

/// An ELF file with `code` at its entry; its one segment is loaded at `address`.
pub fn elf_at(address: u64, code: &[u8]) -> Vec<u8> {
    let code_end = u64::from(CODE_OFFSET) + code.len() as u64;
    let entry = address + u64::from(CODE_OFFSET);
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [entry, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let header = |kind: u32, flags: u32, words: [u64; 6]| {
        let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
        header.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        header
    };
    file.extend(header(
        1,
        7,
        [0, address, address, code_end, code_end, 4096],
    ));
    let note = [NOTE_OFFSET, 0, 0, NOTE_BYTES, NOTE_BYTES, 4];
    file.extend(header(4, 4, note));
    for word in [4u32, 8, 18] {
        file.extend(word.to_le_bytes());
    }
    file.extend(b"Xen\0");
    file.extend(entry.to_le_bytes());
    file.resize(CODE_OFFSET as usize, 0);
    file.extend(code);
    file
}

/// A kernel in a directory of its own, which is where its process runs.
pub struct Kernel {
    pub directory: tempfile::TempDir,
    pub path: PathBuf,
}

impl Kernel {
    pub fn new(code: &[u8]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kernel");
        fs::write(&path, elf_at(LOAD_ADDRESS.into(), code)).unwrap();
        Self { directory, path }
    }

    /// `run --kernel` and the smallest machine. The processor is what hosts of all kinds are silent on.
    pub fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let path = self.path.to_str().unwrap();
        let first = ["run", "--kernel", path, "--memory", "8M", "--rng", "off"];
        let silent: &[&str] = match more.iter().any(|option| option.starts_with("--cpu=")) {
            true => &[],
            false => &["--cpu", "host,-cx16"],
        };
        [&first, silent, more].concat()
    }
}
