//! What is written reads back, and folders come before what is in them.

use std::io::Read;

use cpio::newc::Reader;

use super::Initramfs;

/// Name, mode, device and content.
type Entry = (String, u32, (u32, u32), Vec<u8>);

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut rest = archive;
    let mut entries = Vec::new();
    loop {
        let mut reader = Reader::new(rest).unwrap();
        if reader.entry().is_trailer() {
            return entries;
        }
        let entry = reader.entry().clone();
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        let device = (entry.rdev_major(), entry.rdev_minor());
        entries.push((entry.name().to_owned(), entry.mode(), device, content));
        rest = reader.finish().unwrap();
    }
}

#[test]
fn every_kind_of_entry_reads_back() {
    let mut archive = Initramfs::new(Vec::new());
    archive.folder("/proc").unwrap();
    archive.file("/usr/bin/tool", 0o755, b"content").unwrap();
    archive.symlink("/usr/bin/other", "tool").unwrap();
    archive.character_device("/dev/console", 5, 1).unwrap();
    archive.file("init", 0o700, b"").unwrap();
    let archive = archive.finish().unwrap();

    let text = |bytes: &str| bytes.as_bytes().to_vec();
    assert_eq!(
        entries(&archive),
        vec![
            ("proc".to_owned(), 0o040_755, (0, 0), vec![]),
            ("usr".to_owned(), 0o040_755, (0, 0), vec![]),
            ("usr/bin".to_owned(), 0o040_755, (0, 0), vec![]),
            (
                "usr/bin/tool".to_owned(),
                0o100_755,
                (0, 0),
                text("content")
            ),
            ("usr/bin/other".to_owned(), 0o120_777, (0, 0), text("tool")),
            ("dev".to_owned(), 0o040_755, (0, 0), vec![]),
            ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]),
            ("init".to_owned(), 0o100_700, (0, 0), vec![]),
        ]
    );
}

#[test]
fn archives_can_be_concatenated() {
    let mut whole = Vec::new();
    for name in ["first", "second"] {
        let mut archive = Initramfs::new(Vec::new());
        archive.file(name, 0o644, name.as_bytes()).unwrap();
        let archive = archive.finish().unwrap();
        assert_eq!(archive.len() % 4, 0, "Linux looks for archives at words");
        whole.extend(archive);
    }
    assert_eq!(entries(&whole)[0].0, "first");
}
