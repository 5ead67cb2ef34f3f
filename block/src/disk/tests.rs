use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tempfile::TempDir;

fn image(directory: &TempDir, size_bytes: u64) -> DiskOptions {
    let path = directory.path().join("disk.img");
    File::create(&path).unwrap().set_len(size_bytes).unwrap();
    DiskOptions::new(path)
}

fn message(options: &DiskOptions) -> String {
    Disk::open(options).unwrap_err().to_string()
}

#[test]
fn an_image_has_its_size_and_geometry() {
    let directory = TempDir::new().unwrap();
    let options = image(&directory, 5 * 512);
    let disk = Disk::open(&options).unwrap();
    assert_eq!(disk.sectors(), 5);
    assert!(!disk.readonly());
    assert_eq!(disk.path(), options.path);
    assert_eq!(disk.cache(), CacheMode::Writeback);
    let topology = disk.topology();
    assert_eq!(topology.logical_block_bytes, 512);
    assert!(topology.physical_block_bytes.is_power_of_two());
    // Asking whether it can discard has not made it longer.
    assert_eq!(fs::metadata(&options.path).unwrap().len(), 5 * 512);
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line_with_the_path() {
    let directory = TempDir::new().unwrap();
    let mut options = image(&directory, 1000);
    assert!(message(&options).contains("not a multiple of 512"));
    options = image(&directory, 0);
    assert!(message(&options).contains("empty"));
    options.path = directory.path().to_owned();
    assert!(message(&options).contains("directory"));
    options.path = "/dev/null".into();
    assert!(message(&options).contains("neither a file nor a block device"));
    options.path = directory.path().join("nothing");
    let missing = message(&options);
    assert!(missing.contains("no such file") && missing.contains("nothing"));
    assert!(!missing.contains('\n'));
    options.path = directory.path().join("disk.img/below");
    assert!(message(&options).contains("no such file"));
}

#[test]
fn a_writer_excludes_everybody_and_readers_exclude_writers() {
    let directory = TempDir::new().unwrap();
    let writer = image(&directory, 4096);
    let reader = DiskOptions {
        readonly: true,
        ..writer.clone()
    };
    let unlocked = DiskOptions {
        lock: false,
        ..writer.clone()
    };
    let first = Disk::open(&writer).unwrap();
    let refused = message(&writer);
    assert!(refused.contains("disk.img") && refused.contains("another machine is using it"));
    assert!(message(&reader).contains("another machine"));
    Disk::open(&unlocked).unwrap();
    // Closing the unlocked one has not taken the lock away, as a POSIX lock would have been.
    assert!(message(&writer).contains("another machine"));
    let clone = first.clone();
    drop(first);
    assert!(message(&writer).contains("another machine"));
    drop(clone);
    let readers = [Disk::open(&reader).unwrap(), Disk::open(&reader).unwrap()];
    assert!(message(&writer).contains("another machine"));
    drop(readers);
    Disk::open(&writer).unwrap();
}

#[test]
fn permissions_are_told_apart() {
    let path: PathBuf = "disk.img".into();
    let options = DiskOptions::new(&path);
    let refused = |code| open_error(&options, io::Error::from_raw_os_error(code));
    assert!(matches!(
        refused(libc::EROFS),
        OpenError::ReadOnlyFile { .. }
    ));
    assert!(matches!(
        refused(libc::EACCES),
        OpenError::Permission { .. }
    ));
    assert!(matches!(refused(libc::EMFILE), OpenError::Host { .. }));
    // A file that can be read: the answer to a writer is to open it read-only.
    let directory = TempDir::new().unwrap();
    let options = image(&directory, 512);
    fs::set_permissions(&options.path, fs::Permissions::from_mode(0o444)).unwrap();
    let refused = open_error(&options, io::Error::from_raw_os_error(libc::EACCES));
    assert!(refused.to_string().contains("readonly=on"));
}
