//! What files that are no kernels look like, for messages: people pass the initrd, a disk image, a kernel
//! that is still packed.

/// Magic numbers: offset, bytes, what it is, what to do.
#[rustfmt::skip]
const KNOWN: [(usize, &[u8], &str, &str); 23] = [
    (0x38, b"ARM\x64", "an arm64 kernel Image", "use a kernel built for x86-64"),
    (0x38, b"RSC\x05", "a RISC-V kernel Image", "use a kernel built for x86-64"),
    (0, b"MZ", "an EFI program (PE)", "if it is a unified kernel image, take the kernel out: objcopy -O binary --only-section=.linux"),
    (0, b"\x1f\x8b", "a gzip file", "if the kernel is in it, unpack it with gunzip"),
    (0, b"\xfd7zXZ\0", "an xz file", "if the kernel is in it, unpack it with unxz"),
    (0, b"BZh", "a bzip2 file", "if the kernel is in it, unpack it with bunzip2"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", "if the kernel is in it, unpack it with unzstd"),
    (0, b"\x02\x21\x4c\x18", "an LZ4 file", "if the kernel is in it, unpack it with unlz4"),
    (0, b"\x04\x22\x4d\x18", "an LZ4 file", "if the kernel is in it, unpack it with unlz4"),
    (0, b"\x5d\0\0", "an LZMA file", "if the kernel is in it, unpack it with unlzma"),
    (0, b"\x89LZO", "an lzop file", "if the kernel is in it, unpack it with lzop -d"),
    (0, b"PK\x03\x04", "a zip archive", "give the vmlinux or bzImage in it"),
    (0, b"070701", "a cpio archive", "an initrd goes with a kernel, not in its place"),
    (0, b"070702", "a cpio archive", "an initrd goes with a kernel, not in its place"),
    (0, b"!<arch>", "a Debian package or static library", "unpack it and give the vmlinuz in it"),
    (0, b"\xed\xab\xee\xdb", "an RPM package", "unpack it and give the vmlinuz in it"),
    (0, b"\x27\x05\x19\x56", "a U-Boot image", "give the vmlinux or bzImage from which it was made"),
    (0, b"QFI\xfb", "a qcow2 disk image", "give a kernel; this is for a disk"),
    (0, b"KDMV", "a VMDK disk image", "give a kernel; this is for a disk"),
    (0, b"hsqs", "a squashfs file system", "give a kernel; this is for a disk"),
    (0, b"#!", "a script", "give a vmlinux or bzImage"),
    (0x101, b"ustar", "a tar archive", "unpack it and give the vmlinux or bzImage in it"),
    (0x1fe, b"\x55\xaa", "a disk image, or a kernel from before Linux 1.3.73", "give a vmlinux or a newer bzImage"),
];

/// What the first bytes of a file say that it is, and what to do about it.
pub(crate) fn describe(head: &[u8]) -> (&'static str, &'static str) {
    KNOWN
        .iter()
        .find(|(offset, magic, ..)| {
            head.get(*offset..)
                .is_some_and(|from| from.starts_with(magic))
        })
        .map(|(_, _, what, advice)| (*what, *advice))
        .unwrap_or_else(|| {
            let what = if head.iter().all(|byte| *byte == 0) {
                "a file of zeros"
            } else if head.iter().all(|byte| matches!(byte, 9..=13 | 32..=126)) {
                "a text file"
            } else {
                "data of no known kind"
            };
            (what, "give a vmlinux (ELF) or a bzImage (vmlinuz)")
        })
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn what_people_pass_by_mistake_is_named() {
        let mut arm64 = vec![0; 64];
        arm64[..2].copy_from_slice(b"MZ");
        arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(describe(&arm64).0, "an arm64 kernel Image");
        assert_eq!(describe(b"MZ\0\0").0, "an EFI program (PE)");
        assert_eq!(describe(b"070701000").0, "a cpio archive");
        assert_eq!(describe(b"console=ttyS0\n").0, "a text file");
        assert_eq!(describe(&[0; 512]).0, "a file of zeros");
        assert_eq!(describe(&[0xab; 512]).0, "data of no known kind");
        let mut disk = vec![0; 512];
        disk[510..].copy_from_slice(&[0x55, 0xaa]);
        assert!(describe(&disk).0.starts_with("a disk image"));
    }
}
