use super::*;
use crate::test_images::{bzimage, file, kernel, open, pack};

#[test]
fn files_are_recognised_by_their_contents() {
    let format = |contents: &[u8]| open(contents, Unpack::Auto).unwrap().format();
    assert_eq!(format(&kernel(true)), KernelFormat::Elf { pvh: true });
    assert_eq!(format(&kernel(false)), KernelFormat::Elf { pvh: false });
    for compression in [Compression::Xz, Compression::Lz4, Compression::Unknown] {
        assert_eq!(
            format(&bzimage(&pack(compression, &kernel(true)))),
            KernelFormat::BzImage {
                protocol: 0x20f,
                compression
            }
        );
    }
}

#[test]
fn bad_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        KernelFile::open(path, Unpack::Auto)
            .unwrap_err()
            .to_string()
    };
    let text = message(directory.path());
    assert!(
        text.contains("it is a directory: give the vmlinux"),
        "{text}"
    );
    let text = message(&directory.path().join("vmlinuz"));
    assert!(
        text.contains("vmlinuz: there is no such file: check the path"),
        "{text}"
    );
    let text = message(file(&[]).path());
    assert!(text.contains("it is empty"), "{text}");
    let text = message(Path::new("/dev/zero"));
    assert!(text.contains("a device"), "{text}");
    let text = message(file(b"\x1f\x8b\x08\0").path());
    assert!(
        text.contains("not a kernel but a gzip file: if the kernel"),
        "{text}"
    );
    let text = message(file(b"\x7fELF").path());
    assert!(
        text.contains("truncated: the ELF header ends at offset 0x40"),
        "{text}"
    );
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    if made.is_ok_and(|status| status.success()) {
        let text = KernelFile::open(&path, Unpack::Auto)
            .unwrap_err()
            .to_string();
        assert!(text.contains("pipe"), "{text}");
    }
}

#[test]
fn an_entry_outside_of_what_is_loaded_is_refused() {
    let mut image = kernel(false);
    crate::test_images::set(&mut image, 0x18, 0xffff_ffff_8100_0000, 8);
    let text = open(&image, Unpack::Auto).unwrap_err().to_string();
    assert!(
        text.contains("its entry 0xffffffff81000000 is in no segment"),
        "{text}"
    );
}
