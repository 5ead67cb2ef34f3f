//! qcow2 images, against Debian's qemu-img in both directions: what it makes is read and written here, what
//! is written here it finds clean and reads.
//!
//! `qemu-img` is the one in the path, or else one that is fetched with apt and unpacked beside the build.

#[path = "qcow2/check.rs"]
mod check;
#[path = "qcow2/compressed.rs"]
mod compressed;
#[path = "qcow2/not_closed.rs"]
mod not_closed;
#[path = "qcow2/snapshots.rs"]
mod snapshots;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use block::{
    CacheMode, Disk, DiskOptions, Engine, EngineKind, ImageFormat, IoBuffer, IoError, Operation,
};
use tempfile::TempDir;

const MIB: usize = 1 << 20;
const SIZE: usize = 3 * MIB + 512;
/// Where nothing waits for a disk.
const MEMORY: &str = "/dev/shm";

/// The program, with the folder that its libraries may need.
fn qemu_img() -> &'static (PathBuf, Option<PathBuf>) {
    static PROGRAM: OnceLock<(PathBuf, Option<PathBuf>)> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|folder| folder.join("qemu-img"))
            .find(|program| program.exists());
        found.map_or_else(fetch, |program| (program, None))
    })
}

fn fetch() -> (PathBuf, Option<PathBuf>) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("qemu-utils");
    let program = folder.join("usr/bin/qemu-img");
    if !program.exists() {
        let downloads = tempfile::tempdir().unwrap();
        fs::create_dir(downloads.path().join("partial")).unwrap();
        let archives = format!("Dir::Cache::archives={}", downloads.path().display());
        let status = Command::new("apt-get")
            .args([
                "--quiet",
                "--yes",
                "--no-install-recommends",
                "--download-only",
            ])
            .args([
                "-o",
                "Debug::NoLocking=true",
                "-o",
                &archives,
                "install",
                "qemu-utils",
            ])
            .status();
        assert!(status.unwrap().success(), "qemu-utils cannot be fetched");
        // Whole or not at all: several tests may be at it.
        let unpacked = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for archive in fs::read_dir(downloads.path()).unwrap() {
            let archive = archive.unwrap().path();
            if archive
                .extension()
                .is_some_and(|extension| extension == "deb")
            {
                let mut unpack = Command::new("dpkg");
                unpack.arg("-x").arg(archive).arg(unpacked.path());
                assert!(unpack.status().unwrap().success());
            }
        }
        let _somebody_was_faster = fs::rename(unpacked.path(), &folder);
    }
    let libraries = folder.join("usr/lib/x86_64-linux-gnu");
    (program, Some(libraries))
}

fn try_qemu(folder: &Path, arguments: &str) -> Output {
    let (program, libraries) = qemu_img();
    let mut command = Command::new(program);
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.current_dir(folder).args(arguments.split(' '));
    command.output().unwrap()
}

/// Runs qemu-img in `folder`, which has to succeed.
fn qemu(folder: &Path, arguments: &str) -> String {
    let output = try_qemu(folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "qemu-img {arguments}: {text}{errors}"
    );
    text
}

/// What qemu-img reads in an image.
fn content(folder: &Path, image: &str) -> Vec<u8> {
    qemu(
        folder,
        &format!("convert -f qcow2 -O raw {image} content.raw"),
    );
    fs::read(folder.join("content.raw")).unwrap()
}

/// Bytes that compress a little, with zeros among them.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed | 1);
    let mut bytes = Vec::with_capacity(length + 4096);
    while bytes.len() < length {
        let value = u8::try_from(random.below(256)).unwrap();
        let zeros = random.below(4) == 0;
        bytes.extend((0..4096_u64).map(|index| {
            if zeros {
                0
            } else {
                value ^ u8::try_from(index % 7).unwrap()
            }
        }));
    }
    bytes.truncate(length);
    bytes
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn options(path: PathBuf) -> DiskOptions {
    DiskOptions {
        format: ImageFormat::Qcow2,
        ..DiskOptions::new(path)
    }
}

fn run(engine: &mut Engine, operation: Operation<'_>) -> Result<(), IoError> {
    engine.submit(1, operation);
    engine.drain().unwrap();
    engine.next_completion().unwrap().result
}

fn read(engine: &mut Engine, sector: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    // SAFETY: the bytes are not used before the request has completed.
    let buffers = [unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }];
    run(
        engine,
        Operation::Read {
            sector,
            buffers: &buffers,
        },
    )
    .unwrap();
    bytes
}

fn write(engine: &mut Engine, sector: u64, bytes: &mut [u8], durable: bool) {
    // SAFETY: the bytes are not used before the request has completed.
    let buffers = [unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }];
    let operation = Operation::Write {
        sector,
        buffers: &buffers,
        durable,
    };
    run(engine, operation).unwrap();
}

/// Changes the disk in many ways, and `model` with it.
fn change(engine: &mut Engine, model: &mut [u8], seed: u64) {
    let mut random = Random(seed);
    let sectors = u64::try_from(model.len() / 512).unwrap();
    for step in 0..60 {
        let sector = random.below(sectors);
        let most = (sectors - sector).min(if step % 10 == 0 { 2048 } else { 64 });
        let length = usize::try_from((1 + random.below(most)) * 512).unwrap();
        let start = usize::try_from(sector * 512).unwrap();
        let place = &mut model[start..start + length];
        let length_bytes = u64::try_from(length).unwrap();
        match step % 5 {
            0..3 => {
                let mut bytes = pattern(random.below(1 << 40), length);
                write(engine, sector, &mut bytes, step % 7 == 0);
                place.copy_from_slice(&bytes);
            }
            3 => {
                let may_unmap = step % 2 == 0;
                let zero = Operation::WriteZeroes {
                    sector,
                    length_bytes,
                    may_unmap,
                    durable: false,
                };
                run(engine, zero).unwrap();
                place.fill(0);
            }
            _ => {
                let discard = Operation::Discard {
                    sector,
                    length_bytes,
                };
                run(engine, discard).unwrap();
                // Undefined; read what it is.
                place.copy_from_slice(&read(engine, sector, length));
            }
        }
        assert!(
            read(engine, sector, length) == model[start..start + length],
            "step {step}"
        );
    }
    run(engine, Operation::Flush).unwrap();
}

#[test]
fn what_qemu_made_is_read_and_changed_and_what_was_changed_qemu_finds_clean() {
    for (index, (creation, cache, other_kind)) in [
        ("compat=0.10", CacheMode::Writeback, EngineKind::Threads),
        ("compat=1.1", CacheMode::None, EngineKind::Threads),
        ("cluster_size=512", CacheMode::Writeback, EngineKind::Sync),
        (
            "cluster_size=4k,lazy_refcounts=on",
            CacheMode::DirectSync,
            EngineKind::Threads,
        ),
        ("cluster_size=2M", CacheMode::Writeback, EngineKind::Threads),
        ("refcount_bits=1", CacheMode::Unsafe, EngineKind::Threads),
        (
            "refcount_bits=64,preallocation=metadata",
            CacheMode::None,
            EngineKind::Sync,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        for kind in [EngineKind::IoUring, other_kind] {
            let seed = u64::try_from(index).unwrap() + 77;
            read_and_change(creation, cache, kind, seed);
        }
    }
}

/// Reads and changes an image that qemu-img made with `creation`.
fn read_and_change(creation: &str, cache: CacheMode, kind: EngineKind, seed: u64) {
    let program = std::env::current_exe().unwrap();
    let folder = TempDir::new_in(program.parent().unwrap()).unwrap();
    let mut model = pattern(seed, SIZE);
    fs::write(folder.path().join("source.raw"), &model).unwrap();
    qemu(
        folder.path(),
        &format!("convert -f raw -O qcow2 -o {creation} source.raw disk.qcow2"),
    );
    let options = DiskOptions {
        cache,
        ..options(folder.path().join("disk.qcow2"))
    };
    let disk = Disk::open(&options).unwrap();
    assert_eq!(disk.sectors(), u64::try_from(SIZE / 512).unwrap());
    let mut engine = disk.engine(kind, 16).unwrap();
    assert_eq!(engine.kind(), kind);
    assert!(read(&mut engine, 0, SIZE) == model, "{creation}");
    change(&mut engine, &mut model, seed);
    drop((engine, disk));
    qemu(folder.path(), "check disk.qcow2");
    assert!(content(folder.path(), "disk.qcow2") == model, "{creation}");
    // And once more, from what is on the disk.
    let disk = Disk::open(&options).unwrap();
    let mut engine = disk.engine(kind, 16).unwrap();
    assert!(read(&mut engine, 0, SIZE) == model, "{creation}");
}

#[test]
fn flushed_data_is_in_the_file_while_the_disk_is_open() {
    let folder = TempDir::new().unwrap();
    qemu(folder.path(), "create -f qcow2 disk.qcow2 4M");
    let disk = Disk::open(&options(folder.path().join("disk.qcow2"))).unwrap();
    let mut engine = disk.engine(EngineKind::IoUring, 4).unwrap();
    let mut bytes = pattern(5, 2 * MIB);
    write(&mut engine, 100, &mut pattern(4, 2 * MIB), false);
    // Into clusters that are there.
    write(&mut engine, 100, &mut bytes, false);
    run(&mut engine, Operation::Flush).unwrap();
    // As a machine that is killed now would leave it.
    fs::copy(
        folder.path().join("disk.qcow2"),
        folder.path().join("copy.qcow2"),
    )
    .unwrap();
    write(&mut engine, 5000, &mut pattern(6, MIB), true);
    fs::copy(
        folder.path().join("disk.qcow2"),
        folder.path().join("later.qcow2"),
    )
    .unwrap();
    for copy in ["copy.qcow2", "later.qcow2"] {
        qemu(folder.path(), &format!("check {copy}"));
        let content = content(folder.path(), copy);
        assert!(
            content[100 * 512..100 * 512 + bytes.len()] == bytes[..],
            "{copy}"
        );
    }
    let content = fs::read(folder.path().join("content.raw")).unwrap();
    assert!(content[5000 * 512..][..MIB] == pattern(6, MIB)[..]);
}

#[test]
fn compressed_images_are_read_and_written_over() {
    let folder = TempDir::new().unwrap();
    let mut model = pattern(9, SIZE);
    fs::write(folder.path().join("source.raw"), &model).unwrap();
    qemu(
        folder.path(),
        "convert -c -f raw -O qcow2 source.raw disk.qcow2",
    );
    let disk = Disk::open(&options(folder.path().join("disk.qcow2"))).unwrap();
    let mut engine = disk.engine(EngineKind::Threads, 16).unwrap();
    assert!(read(&mut engine, 0, SIZE) == model);
    change(&mut engine, &mut model, 3);
    drop((engine, disk));
    qemu(folder.path(), "check disk.qcow2");
    assert!(content(folder.path(), "disk.qcow2") == model);
}

#[test]
fn backing_chains_show_what_is_not_written_and_are_not_changed() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut model = pattern(21, SIZE);
    fs::write(path("base.raw"), &model[..2 * MIB]).unwrap();
    qemu(
        folder.path(),
        &format!("create -f qcow2 -F raw -b base.raw middle.qcow2 {SIZE}"),
    );
    model[2 * MIB..].fill(0);
    let first_before = fs::read(path("base.raw")).unwrap();
    {
        let disk = Disk::open(&options(path("middle.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::IoUring, 16).unwrap();
        assert!(read(&mut engine, 0, SIZE) == model);
        change(&mut engine, &mut model, 1);
    }
    qemu(
        folder.path(),
        "create -f qcow2 -F qcow2 -b middle.qcow2 top.qcow2",
    );
    let second_before = fs::read(path("middle.qcow2")).unwrap();
    let disk = Disk::open(&options(path("top.qcow2"))).unwrap();
    let mut engine = disk.engine(EngineKind::IoUring, 16).unwrap();
    assert!(read(&mut engine, 0, SIZE) == model);
    change(&mut engine, &mut model, 2);
    // Nobody may write to what is behind it, and all may read it.
    for name in ["base.raw", "middle.qcow2"] {
        let refused = Disk::open(&DiskOptions::new(path(name))).unwrap_err();
        assert!(refused.to_string().contains("another machine"), "{refused}");
    }
    let reader = DiskOptions {
        readonly: true,
        ..options(path("middle.qcow2"))
    };
    Disk::open(&reader).unwrap();
    drop((engine, disk));
    qemu(folder.path(), "check top.qcow2");
    assert!(content(folder.path(), "top.qcow2") == model);
    assert!(fs::read(path("base.raw")).unwrap() == first_before);
    assert!(fs::read(path("middle.qcow2")).unwrap() == second_before);
    // A backing file in use by a writer.
    let writer = Disk::open(&DiskOptions::new(path("base.raw"))).unwrap();
    let refused = Disk::open(&options(path("top.qcow2")))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("base.raw") && refused.contains("another machine"),
        "{refused}"
    );
    drop(writer);
    fs::remove_file(path("base.raw")).unwrap();
    let refused = Disk::open(&options(path("top.qcow2")))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("base.raw"), "{refused}");
}

#[test]
fn internal_snapshots_stay_what_they_were() {
    let folder = TempDir::new().unwrap();
    let before = pattern(31, SIZE);
    fs::write(folder.path().join("source.raw"), &before).unwrap();
    qemu(
        folder.path(),
        "convert -f raw -O qcow2 source.raw disk.qcow2",
    );
    qemu(folder.path(), "snapshot -c before disk.qcow2");
    let mut model = before.clone();
    {
        let disk = Disk::open(&options(folder.path().join("disk.qcow2"))).unwrap();
        let mut engine = disk.engine(EngineKind::IoUring, 16).unwrap();
        change(&mut engine, &mut model, 8);
    }
    qemu(folder.path(), "check disk.qcow2");
    assert!(content(folder.path(), "disk.qcow2") == model);
    qemu(
        folder.path(),
        "convert -l before -f qcow2 -O raw disk.qcow2 before.raw",
    );
    assert!(fs::read(folder.path().join("before.raw")).unwrap() == before);
}

/// Two queues, each with clusters of its own, that write, read, and give back at the same time.
#[test]
fn clusters_are_not_given_back_while_somebody_transfers_there() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let program = std::env::current_exe().unwrap();
        let folder = TempDir::new_in(program.parent().unwrap()).unwrap();
        qemu(
            folder.path(),
            "create -f qcow2 -o cluster_size=4k disk.qcow2 1M",
        );
        let options = DiskOptions {
            cache,
            ..options(folder.path().join("disk.qcow2"))
        };
        let disk = Disk::open(&options).unwrap();
        std::thread::scope(|scope| {
            for queue in 0..2 {
                let engine = disk.engine(EngineKind::IoUring, 16).unwrap();
                scope.spawn(move || keep_changing(engine, queue));
            }
        });
        drop(disk);
        qemu(folder.path(), "check disk.qcow2");
    }
}

/// Changes the clusters of a queue, every second of the disk's, sixteen at a time.
fn keep_changing(mut engine: Engine, queue: u64) {
    const CLUSTER: usize = 4096;
    #[repr(align(4096))]
    struct Cluster([u8; CLUSTER]);
    let mut random = Random(queue + 5);
    let mut model = [0_u8; 128];
    for _ in 0..300 {
        let mut memory: Vec<_> = (0..16).map(|_| Cluster([0xee; CLUSTER])).collect();
        // Different ones, so that no two requests are for the same.
        let first = usize::try_from(random.below(128)).unwrap();
        let clusters: Vec<_> = (0..16).map(|index| (first + index * 7) % 128).collect();
        for (tag, (&cluster, memory)) in (0..).zip(clusters.iter().zip(&mut memory)) {
            let sector = (u64::try_from(cluster).unwrap() * 2 + queue) * 8;
            let action = random.below(4);
            let value = u8::try_from(random.below(255) + 1).unwrap();
            if action < 2 {
                memory.0.fill(value);
            }
            // SAFETY: the memory is not used before the requests have completed.
            let buffers = [unsafe { IoBuffer::new(memory.0.as_mut_ptr(), CLUSTER) }];
            let buffers = &buffers;
            match action {
                0 | 1 => {
                    model[cluster] = value;
                    let durable = action == 1 && value < 20;
                    let write = Operation::Write {
                        sector,
                        buffers,
                        durable,
                    };
                    engine.submit(tag, write);
                }
                2 => engine.submit(tag, Operation::Read { sector, buffers }),
                _ => {
                    model[cluster] = 0;
                    let zero = Operation::WriteZeroes {
                        sector,
                        length_bytes: 4096,
                        may_unmap: true,
                        durable: false,
                    };
                    engine.submit(tag, zero);
                    // For what is compared below.
                    memory.0.fill(0);
                }
            }
        }
        engine.drain().unwrap();
        while let Some(completion) = engine.next_completion() {
            completion.result.unwrap();
        }
        for (&cluster, memory) in clusters.iter().zip(&memory) {
            assert!(memory.0 == [model[cluster]; CLUSTER], "cluster {cluster}");
        }
    }
}

#[test]
fn what_is_damaged_or_unknown_is_refused_in_one_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.qcow2");
    let message = |options: &DiskOptions| {
        let text = Disk::open(options).unwrap_err().to_string();
        assert!(
            text.contains("disk.qcow2") && !text.contains('\n'),
            "{text}"
        );
        text
    };
    // Bits of the incompatible features, at byte 72: corrupt, and one that nobody knows.
    for bit in [2_u8, 1 << 6] {
        qemu(folder.path(), "create -f qcow2 disk.qcow2 1M");
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[bit], 79).unwrap();
        assert!(message(&options(path.clone())).contains("feature"));
    }
    qemu(
        folder.path(),
        "create -f qcow2 -o compression_type=zstd disk.qcow2 1M",
    );
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[2], 104).unwrap();
    assert!(message(&options(path.clone())).contains("compression type"));
    // A chain without an end.
    qemu(
        folder.path(),
        "create -f qcow2 -u -F qcow2 -b other.qcow2 disk.qcow2 1M",
    );
    qemu(
        folder.path(),
        "create -f qcow2 -u -F qcow2 -b disk.qcow2 other.qcow2 1M",
    );
    let unlocked = DiskOptions {
        readonly: true,
        ..options(path.clone())
    };
    assert!(message(&unlocked).contains("loop"));
    fs::write(&path, vec![0; 4096]).unwrap();
    assert!(message(&options(path.clone())).contains("qcow2"));
    // Tables that lead nowhere.
    qemu(folder.path(), "create -f qcow2 disk.qcow2 1M");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 8], 40).unwrap();
    message(&options(path));
}

#[test]
fn the_format_is_taken_from_the_content_only_when_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.img");
    qemu(folder.path(), "create -f qcow2 disk.img 64M");
    let open = |format| {
        Disk::open(&DiskOptions {
            format,
            ..DiskOptions::new(&path)
        })
        .unwrap()
        .sectors()
    };
    let file_bytes = fs::metadata(&path).unwrap().len().next_multiple_of(512);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(file_bytes)
        .unwrap();
    assert_eq!(open(ImageFormat::Raw), file_bytes / 512);
    assert_eq!(open(ImageFormat::Qcow2), 64 * 2048);
    assert_eq!(open(ImageFormat::Auto), 64 * 2048);
    fs::write(&path, [1; 1024]).unwrap();
    assert_eq!(open(ImageFormat::Auto), 2);
    fs::write(&path, [0; 512]).unwrap();
    assert_eq!(open(ImageFormat::Auto), 1);
}

#[test]
fn an_image_grows_and_shows_nothing_of_its_backing_file_there() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("base.raw"), pattern(3, 2 * MIB)).unwrap();
    qemu(
        folder.path(),
        "create -f qcow2 -F raw -b base.raw disk.qcow2 1M",
    );
    let disk = Disk::open(&options(path("disk.qcow2"))).unwrap();
    let mut engine = disk.engine(EngineKind::Threads, 4).unwrap();
    disk.grow(3 << 20).unwrap();
    assert_eq!(disk.sectors(), 3 * 2048);
    let mut model = pattern(3, MIB);
    model.resize(3 * MIB, 0);
    assert!(read(&mut engine, 0, 3 * MIB) == model);
    write(&mut engine, 5000, &mut pattern(4, 4096), true);
    model[5000 * 512..][..4096].copy_from_slice(&pattern(4, 4096));
    drop((engine, disk));
    qemu(folder.path(), "check disk.qcow2");
    assert!(content(folder.path(), "disk.qcow2") == model);
}

#[test]
fn images_are_made_described_copied_and_enlarged() {
    use block::image::{self, CreateOptions};
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let qcow2 = CreateOptions {
        format: ImageFormat::Qcow2,
        ..CreateOptions::default()
    };
    // Made here, looked at there.
    for cluster_bytes in [512, 4096, 65536, 2 << 20] {
        let name = format!("made-{cluster_bytes}.qcow2");
        let options = CreateOptions {
            size_bytes: Some(5 << 20),
            cluster_bytes: Some(cluster_bytes),
            ..qcow2.clone()
        };
        image::create(&path(&name), &options).unwrap();
        qemu(folder.path(), &format!("check {name}"));
        assert!(content(folder.path(), &name) == vec![0; 5 << 20]);
        let described = image::info(&path(&name), ImageFormat::Auto).unwrap();
        assert_eq!(described.size_bytes, 5 << 20);
        assert_eq!(described.qcow2.unwrap().cluster_bytes, cluster_bytes);
    }
    // Copied in both directions.
    let source = pattern(41, SIZE);
    fs::write(path("source.raw"), &source).unwrap();
    image::convert(
        &path("source.raw"),
        ImageFormat::Raw,
        &path("copy.qcow2"),
        &qcow2,
    )
    .unwrap();
    qemu(folder.path(), "check copy.qcow2");
    assert!(content(folder.path(), "copy.qcow2") == source);
    let raw = CreateOptions::default();
    qemu(
        folder.path(),
        "convert -c -f raw -O qcow2 source.raw packed.qcow2",
    );
    image::convert(
        &path("packed.qcow2"),
        ImageFormat::Qcow2,
        &path("again.raw"),
        &raw,
    )
    .unwrap();
    assert!(fs::read(path("again.raw")).unwrap() == source);
    // What is zero takes no space.
    let sparse = image::info(&path("again.raw"), ImageFormat::Auto).unwrap();
    assert_eq!(sparse.format, ImageFormat::Raw);
    assert!(sparse.allocated_bytes <= sparse.size_bytes.next_multiple_of(4096));
    // On top of another, and larger.
    let on_top = CreateOptions {
        backing: Some(("copy.qcow2".into(), ImageFormat::Qcow2)),
        ..qcow2.clone()
    };
    image::create(&path("top.qcow2"), &on_top).unwrap();
    let described = image::info(&path("top.qcow2"), ImageFormat::Auto).unwrap();
    let head = described.qcow2.unwrap();
    assert_eq!(head.backing.as_deref(), Some("copy.qcow2"));
    assert_eq!(head.backing_format.as_deref(), Some("qcow2"));
    assert_eq!((head.version, head.snapshots, head.corrupt), (3, 0, false));
    image::resize(&path("top.qcow2"), ImageFormat::Qcow2, 8 << 20).unwrap();
    let mut model = source.clone();
    model.resize(8 << 20, 0);
    qemu(folder.path(), "check top.qcow2");
    assert!(content(folder.path(), "top.qcow2") == model);
    image::resize(&path("again.raw"), ImageFormat::Raw, 8 << 20).unwrap();
    assert_eq!(fs::metadata(path("again.raw")).unwrap().len(), 8 << 20);
    // What qemu-img made.
    qemu(
        folder.path(),
        "create -f qcow2 -o compression_type=zstd,lazy_refcounts=on other.qcow2 1M",
    );
    qemu(folder.path(), "snapshot -c one other.qcow2");
    let head = image::info(&path("other.qcow2"), ImageFormat::Auto).unwrap();
    let head = head.qcow2.unwrap();
    assert_eq!(
        (head.compression, head.snapshots, head.lazy_refcounts),
        ("zstd", 1, true)
    );
    // What cannot be.
    let message = |result: Result<(), image::ImageError>| result.unwrap_err().to_string();
    let existing = CreateOptions {
        size_bytes: Some(512),
        ..raw.clone()
    };
    assert!(message(image::create(&path("top.qcow2"), &existing)).contains("there already"));
    assert!(message(image::create(&path("new"), &raw)).contains("how large"));
    let clusters = CreateOptions {
        cluster_bytes: Some(512),
        ..existing.clone()
    };
    assert!(message(image::create(&path("new"), &clusters)).contains("clusters"));
    let odd = CreateOptions {
        cluster_bytes: Some(1000),
        size_bytes: Some(512),
        ..qcow2
    };
    assert!(message(image::create(&path("new"), &odd)).contains("1000"));
    assert!(
        message(image::resize(&path("again.raw"), ImageFormat::Raw, 512)).contains("only grows")
    );
    assert!(!path("new").exists());
}

#[test]
fn an_image_without_a_count_for_its_header_is_read_and_not_written() {
    use block::image::{self, CreateOptions};
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.qcow2");
    let options = CreateOptions {
        format: ImageFormat::Qcow2,
        size_bytes: Some(16 << 10),
        cluster_bytes: Some(512),
        ..CreateOptions::default()
    };
    image::create(&path, &options).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let mut table = [0; 8];
    file.read_exact_at(&mut table, 48).unwrap();
    file.write_all_at(&[0; 8], u64::from_be_bytes(table))
        .unwrap();
    let writable = DiskOptions {
        format: ImageFormat::Qcow2,
        ..DiskOptions::new(&path)
    };
    let message = Disk::open(&writable).unwrap_err().to_string();
    assert!(message.contains("no reference count"), "{message}");
    let readonly = DiskOptions {
        readonly: true,
        ..writable.clone()
    };
    assert_eq!(Disk::open(&readonly).unwrap().sectors(), 32);
    // Nor where the table has no clusters, or is nowhere.
    image::create(&folder.path().join("empty.qcow2"), &options).unwrap();
    fs::rename(folder.path().join("empty.qcow2"), &path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    Disk::open(&writable).unwrap();
    file.write_all_at(&[0; 4], 56).unwrap();
    let message = Disk::open(&writable).unwrap_err().to_string();
    assert!(message.contains("no reference count"), "{message}");
    file.write_all_at(&1_u32.to_be_bytes(), 56).unwrap();
    for table in [u64::MAX, u64::MAX >> 1, 1 << 40] {
        file.write_all_at(&table.to_be_bytes(), 48).unwrap();
        Disk::open(&writable).unwrap_err();
    }
}
