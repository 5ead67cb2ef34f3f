use super::*;
use crate::transfer::{VECTORS_MAX, transfer};
use crate::{CacheMode, Disk, DiskOptions};
use proptest::prelude::*;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt as _;
use tempfile::TempDir;

const SECTORS: u64 = 64;
const DEPTH: usize = 32;
const KINDS: [EngineKind; 3] = [EngineKind::IoUring, EngineKind::Threads, EngineKind::Sync];
const CACHES: [CacheMode; 4] = [
    CacheMode::Writeback,
    CacheMode::None,
    CacheMode::DirectSync,
    CacheMode::Unsafe,
];

struct Fixture {
    options: DiskOptions,
    disk: Disk,
    engine: Engine,
    _directory: TempDir,
}

/// A disk of [`SECTORS`] sectors, each filled with its number, beside the build.
fn fixture(kind: EngineKind, cache: CacheMode, readonly: bool) -> Fixture {
    // On a file system with O_DIRECT, which the one for temporary files may not have.
    let program = std::env::current_exe().unwrap();
    fixture_in(program.parent().unwrap(), kind, cache, readonly)
}

fn fixture_in(
    directory: &std::path::Path,
    kind: EngineKind,
    cache: CacheMode,
    readonly: bool,
) -> Fixture {
    let directory = TempDir::new_in(directory).unwrap();
    let path = directory.path().join("disk.img");
    let content: Vec<u8> = (0..SECTORS)
        .flat_map(|sector| [u8::try_from(sector).unwrap(); 512])
        .collect();
    fs::write(&path, content).unwrap();
    let options = DiskOptions {
        cache,
        readonly,
        ..DiskOptions::new(path)
    };
    let disk = Disk::open(&options).unwrap();
    let engine = disk.engine(kind, DEPTH).unwrap();
    assert_eq!(engine.kind(), kind);
    Fixture {
        options,
        disk,
        engine,
        _directory: directory,
    }
}

fn buffer(bytes: &mut [u8]) -> IoBuffer {
    // SAFETY: the tests keep the bytes and do not use them while the request runs.
    unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }
}

/// Waits as a worker does: by the event's edges. Returns the next completion.
fn wait(engine: &mut Engine) -> Completion {
    let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
    use vmm_sys_util::epoll::{ControlOperation, EpollEvent, EventSet};
    let interest = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    epoll
        .ctl(ControlOperation::Add, engine.event().as_raw_fd(), interest)
        .unwrap();
    loop {
        engine.commit().unwrap();
        if let Some(completion) = engine.next_completion() {
            return completion;
        }
        if engine.prepare_wait().unwrap() {
            let mut events = [EpollEvent::default()];
            let ready = crate::host::retry(|| epoll.wait(10_000, &mut events)).unwrap();
            assert_eq!(ready, 1, "no completion in time");
        }
    }
}

fn run(engine: &mut Engine, operation: Operation<'_>) -> Result<(), IoError> {
    engine.submit(7, operation);
    let completion = wait(engine);
    assert_eq!(completion.tag, 7);
    assert!(engine.next_completion().is_none());
    assert_eq!(engine.in_flight(), 0);
    completion.result
}

#[test]
fn reads_and_writes_go_where_they_should() {
    for (kind, cache) in KINDS
        .into_iter()
        .flat_map(|kind| CACHES.map(|cache| (kind, cache)))
    {
        let mut fixture = fixture(kind, cache, false);
        let mut bytes = vec![0; 1024];
        let (one, two) = bytes.split_at_mut(100);
        let buffers = [buffer(one), buffer(two)];
        run(
            &mut fixture.engine,
            Operation::Read {
                sector: 3,
                buffers: &buffers,
            },
        )
        .unwrap();
        assert!(bytes[..512].iter().all(|&byte| byte == 3));
        assert!(bytes[512..].iter().all(|&byte| byte == 4));
        let mut bytes = vec![0xee; 512];
        for durable in [false, true] {
            let buffers = [buffer(&mut bytes)];
            let write = Operation::Write {
                sector: SECTORS - 1,
                buffers: &buffers,
                durable,
            };
            run(&mut fixture.engine, write).unwrap();
        }
        run(&mut fixture.engine, Operation::Flush).unwrap();
        let content = fs::read(&fixture.options.path).unwrap();
        assert_eq!(content.len(), 512 * 64);
        assert!(content[63 * 512..].iter().all(|&byte| byte == 0xee));
        assert!(content[62 * 512..63 * 512].iter().all(|&byte| byte == 62));
    }
}

#[test]
fn nothing_beyond_the_end_is_touched() {
    let mut fixture = fixture(EngineKind::IoUring, CacheMode::Writeback, false);
    let mut bytes = vec![0; 1024];
    for sector in [
        SECTORS - 1,
        SECTORS,
        u64::MAX / 512,
        u64::MAX / 512 + 1,
        u64::MAX,
    ] {
        let buffers = [buffer(&mut bytes)];
        let operations = [
            Operation::Read {
                sector,
                buffers: &buffers,
            },
            Operation::Write {
                sector,
                buffers: &buffers,
                durable: false,
            },
            Operation::Discard {
                sector,
                length_bytes: 1024,
            },
            Operation::WriteZeroes {
                sector,
                length_bytes: 1024,
                may_unmap: true,
                durable: false,
            },
        ];
        for operation in operations {
            let error = run(&mut fixture.engine, operation).unwrap_err();
            assert!(matches!(error, IoError::OutOfRange), "{operation:?}");
        }
    }
    let huge = Operation::Discard {
        sector: 0,
        length_bytes: !511,
    };
    assert!(matches!(
        run(&mut fixture.engine, huge),
        Err(IoError::OutOfRange)
    ));
    let buffers = [buffer(&mut bytes[..100])];
    let part = Operation::Read {
        sector: 0,
        buffers: &buffers,
    };
    assert!(matches!(
        run(&mut fixture.engine, part),
        Err(IoError::PartialSector)
    ));
    let nothing = Operation::Read {
        sector: SECTORS,
        buffers: &[],
    };
    run(&mut fixture.engine, nothing).unwrap();
}

#[test]
fn a_read_only_disk_is_not_changed() {
    let mut fixture = fixture(EngineKind::IoUring, CacheMode::Writeback, true);
    let mut bytes = vec![9; 512];
    let buffers = [buffer(&mut bytes)];
    let changes = [
        Operation::Write {
            sector: 0,
            buffers: &buffers,
            durable: false,
        },
        Operation::Discard {
            sector: 0,
            length_bytes: 512,
        },
        Operation::WriteZeroes {
            sector: 0,
            length_bytes: 512,
            may_unmap: true,
            durable: true,
        },
    ];
    for operation in changes {
        let error = run(&mut fixture.engine, operation).unwrap_err();
        assert!(matches!(error, IoError::ReadOnly));
    }
    run(&mut fixture.engine, Operation::Flush).unwrap();
    run(
        &mut fixture.engine,
        Operation::Read {
            sector: 5,
            buffers: &buffers,
        },
    )
    .unwrap();
    assert_eq!(bytes, [5; 512]);
}

#[test]
fn zeroed_sectors_read_as_zeros_by_every_means() {
    let means = [(true, false), (false, false), (false, true)];
    for (kind, (may_unmap, no_zero_range)) in KINDS
        .into_iter()
        .flat_map(|kind| means.map(|means| (kind, means)))
    {
        let mut fixture = fixture(kind, CacheMode::None, false);
        fixture
            .engine
            .image
            .no_zero_range
            .store(no_zero_range, Ordering::Relaxed);
        let zero = Operation::WriteZeroes {
            sector: 2,
            length_bytes: 60 * 512,
            may_unmap,
            durable: true,
        };
        run(&mut fixture.engine, zero).unwrap();
        let content = fs::read(&fixture.options.path).unwrap();
        assert_eq!(content.len(), 64 * 512);
        assert!(content[2 * 512..62 * 512].iter().all(|&byte| byte == 0));
        assert!(content[512..1024].iter().all(|&byte| byte == 1));
        assert!(content[62 * 512..63 * 512].iter().all(|&byte| byte == 62));
    }
    for kind in KINDS {
        let mut fixture = fixture(kind, CacheMode::Writeback, false);
        let discard = Operation::Discard {
            sector: 8,
            length_bytes: 8 * 512,
        };
        run(&mut fixture.engine, discard).unwrap();
        let content = fs::read(&fixture.options.path).unwrap();
        assert!(content[8 * 512..16 * 512].iter().all(|&byte| byte == 0));
    }
}

#[test]
fn zeros_are_written_in_pieces() {
    let fixture = fixture(EngineKind::Sync, CacheMode::Writeback, false);
    let file = File::options()
        .write(true)
        .open(&fixture.options.path)
        .unwrap();
    file.set_len(3 * 1024 * 1024).unwrap();
    file.write_all_at(&[1; 8192], 1024 * 1024 - 4096).unwrap();
    Executor::new(Arc::clone(&fixture.engine.image))
        .write_zero_bytes(100, 2 * 1024 * 1024)
        .unwrap();
    let content = fs::read(&fixture.options.path).unwrap();
    assert!(content[100..].iter().all(|&byte| byte == 0));
    assert_eq!(content.len(), 3 * 1024 * 1024);
}

#[test]
fn an_image_that_was_cut_short_is_an_error_of_the_request() {
    for (kind, cache) in KINDS
        .into_iter()
        .flat_map(|kind| CACHES.map(|cache| (kind, cache)))
    {
        let mut fixture = fixture(kind, cache, false);
        File::options()
            .write(true)
            .open(&fixture.options.path)
            .unwrap()
            .set_len(1000)
            .unwrap();
        let mut bytes = vec![0; 1024];
        let buffers = [buffer(&mut bytes)];
        for _ in 0..2 {
            let read = Operation::Read {
                sector: 1,
                buffers: &buffers,
            };
            let error = run(&mut fixture.engine, read).unwrap_err();
            assert!(
                matches!(error, IoError::Host(error) if error.kind() == io::ErrorKind::UnexpectedEof),
                "{kind:?} {cache:?}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_request() {
    let mut fixture = fixture(EngineKind::Sync, CacheMode::Writeback, false);
    let mut bytes = vec![1; 4096];
    let mut rest = Rest::default();
    rest.fill(&[buffer(&mut bytes)]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let write = Direction::Write { durable: false };
    let error = transfer(&full, write, &mut 0, &mut rest).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    let path = &fixture.options.path;
    assert!(fixture.engine.log.write(path, &Work::Flush, &error));
    assert!(!fixture.engine.log.write(path, &Work::Flush, &error));
}

/// A file system with 64 KiB, seen by this thread alone; `None` where that takes rights that are missing.
fn small_file_system() -> Option<TempDir> {
    // SAFETY: changes which mounts this thread sees, and no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) } != 0 {
        return None;
    }
    let directory = TempDir::new().unwrap();
    let mount =
        |source: &std::ffi::CStr, target: &std::path::Path, flags, data: &std::ffi::CStr| {
            let target = std::ffi::CString::new(target.as_os_str().as_encoded_bytes()).unwrap();
            // SAFETY: all arguments are strings that live until the call returns.
            let result = unsafe {
                libc::mount(
                    source.as_ptr(),
                    target.as_ptr(),
                    c"tmpfs".as_ptr(),
                    flags,
                    data.as_ptr().cast(),
                )
            };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
        };
    mount(
        c"none",
        std::path::Path::new("/"),
        libc::MS_REC | libc::MS_PRIVATE,
        c"",
    );
    mount(c"tmpfs", directory.path(), 0, c"size=64k");
    Some(directory)
}

#[test]
fn a_disk_that_fills_up_goes_on_when_there_is_space_again() {
    for (kind, inline) in [
        (EngineKind::IoUring, true),
        (EngineKind::IoUring, false),
        (EngineKind::Threads, false),
        (EngineKind::Sync, false),
    ] {
        let test = move || {
            let Some(directory) = small_file_system() else {
                return;
            };
            let path = directory.path().join("disk.img");
            let other = directory.path().join("other");
            File::create(&path).unwrap().set_len(1 << 20).unwrap();
            fs::write(&other, vec![1; 32 << 10]).unwrap();
            let disk = Disk::open(&DiskOptions::new(&path)).unwrap();
            let mut engine = disk.engine(kind, DEPTH).unwrap();
            if !inline {
                engine.inline = Inline::nothing();
            }
            let mut bytes = vec![7; 48 << 10];
            let buffers = [buffer(&mut bytes)];
            let write = Operation::Write {
                sector: 0,
                buffers: &buffers,
                durable: false,
            };
            let error = run(&mut engine, write).unwrap_err();
            assert!(
                matches!(&error, IoError::Host(error) if error.raw_os_error() == Some(libc::ENOSPC)),
                "{kind:?}: {error}"
            );
            fs::remove_file(&other).unwrap();
            run(&mut engine, write).unwrap();
            assert_eq!(fs::read(&path).unwrap()[..48 << 10], vec![7; 48 << 10]);
        };
        std::thread::spawn(test).join().unwrap();
    }
}

#[test]
fn many_requests_are_under_way_at_a_time() {
    for (kind, cache) in KINDS
        .into_iter()
        .flat_map(|kind| CACHES.map(|cache| (kind, cache)))
    {
        let mut fixture = fixture(kind, cache, false);
        let engine = &mut fixture.engine;
        engine.inline = Inline::nothing();
        // More than the depth, and twice.
        for _ in 0..2 {
            let mut memory = vec![vec![0xff_u8; 513]; 2 * DEPTH];
            let buffers: Vec<IoBuffer> = memory
                .iter_mut()
                .map(|bytes| buffer(&mut bytes[..512]))
                .collect();
            for (tag, buffer) in (0..).zip(&buffers) {
                let read = Operation::Read {
                    sector: tag,
                    buffers: std::slice::from_ref(buffer),
                };
                engine.submit(tag, read);
            }
            assert_eq!(engine.in_flight(), 2 * DEPTH);
            let mut seen = [false; 2 * DEPTH];
            for _ in 0..2 * DEPTH {
                let completion = wait(engine);
                completion.result.unwrap();
                let tag = usize::try_from(completion.tag).unwrap();
                assert!(!std::mem::replace(&mut seen[tag], true));
            }
            assert_eq!(engine.in_flight(), 0);
            for (sector, bytes) in memory.iter().enumerate() {
                assert!(bytes[..512].iter().all(|&byte| usize::from(byte) == sector));
                assert_eq!(bytes[512], 0xff);
            }
        }
    }
}

#[test]
fn draining_waits_for_everything() {
    for kind in KINDS {
        let mut fixture = fixture(kind, CacheMode::None, false);
        let mut bytes = vec![0; 64 * 512];
        let buffers: Vec<IoBuffer> = bytes.chunks_mut(512).map(buffer).collect();
        for (tag, buffer) in (0..32).zip(&buffers) {
            let write = Operation::Write {
                sector: tag,
                buffers: std::slice::from_ref(buffer),
                durable: tag % 2 == 0,
            };
            fixture.engine.submit(tag, write);
        }
        fixture.engine.submit(32, Operation::Flush);
        let discard = Operation::Discard {
            sector: 40,
            length_bytes: 512,
        };
        fixture.engine.submit(33, discard);
        fixture.engine.drain().unwrap();
        let mut tags: Vec<u64> = std::iter::from_fn(|| fixture.engine.next_completion())
            .map(|completion| {
                completion.result.unwrap();
                completion.tag
            })
            .collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..34).collect::<Vec<u64>>());
        assert_eq!(
            fs::read(&fixture.options.path).unwrap()[..32 * 512],
            [0; 32 * 512]
        );
    }
}

#[test]
fn an_engine_that_is_dropped_leaves_nothing_under_way() {
    for kind in KINDS {
        let fixture = fixture(kind, CacheMode::None, false);
        let mut bytes = vec![9; 32 * 512];
        let buffers: Vec<IoBuffer> = bytes.chunks_mut(512).map(buffer).collect();
        let Fixture {
            options,
            mut engine,
            disk,
            _directory,
        } = fixture;
        for (tag, buffer) in (0..32).zip(&buffers) {
            let write = Operation::Write {
                sector: tag,
                buffers: std::slice::from_ref(buffer),
                durable: false,
            };
            engine.submit(tag, write);
        }
        drop(engine);
        drop(disk);
        assert_eq!(fs::read(&options.path).unwrap()[..32 * 512], [9; 32 * 512]);
    }
}

/// Forbids this thread io_uring, as container runtimes do.
fn forbid_io_uring() {
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let errno = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let mut filter = [
        // The number of the system call is the first field of seccomp_data.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
        statement(libc::BPF_RET | libc::BPF_K, errno, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers alone.
    let no_new = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(no_new, 0);
    // SAFETY: the program and its filter live until the call returns.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn threads_stand_in_where_io_uring_is_refused() {
    let fixture = fixture(EngineKind::IoUring, CacheMode::Writeback, false);
    let test = move || {
        forbid_io_uring();
        let mut engine = fixture.disk.engine(EngineKind::IoUring, DEPTH).unwrap();
        assert_eq!(engine.kind(), EngineKind::Threads);
        engine.inline = Inline::nothing();
        let mut bytes = vec![0; 512];
        let buffers = [buffer(&mut bytes)];
        let read = Operation::Read {
            sector: 5,
            buffers: &buffers,
        };
        run(&mut engine, read).unwrap();
        assert_eq!(bytes, [5; 512]);
    };
    std::thread::spawn(test).join().unwrap();
}

#[test]
fn writes_are_durable_and_flushes_happen_as_the_cache_mode_says() {
    for (cache, durable_asked, expected, flushes) in [
        (CacheMode::Writeback, false, false, true),
        (CacheMode::Writeback, true, true, true),
        (CacheMode::None, false, false, true),
        (CacheMode::DirectSync, false, true, true),
        (CacheMode::Unsafe, true, false, false),
    ] {
        let fixture = fixture(EngineKind::Sync, cache, false);
        let write = Operation::Write {
            sector: 0,
            buffers: &[],
            durable: durable_asked,
        };
        let (work, _) = fixture.engine.prepare(write).unwrap();
        let direction = Direction::Write { durable: expected };
        assert_eq!(
            work,
            Work::Transfer {
                direction,
                offset: 0
            }
        );
        let zero = Operation::WriteZeroes {
            sector: 0,
            length_bytes: 512,
            may_unmap: false,
            durable: durable_asked,
        };
        let (work, _) = fixture.engine.prepare(zero).unwrap();
        assert!(matches!(work, Work::WriteZeroes { durable, .. } if durable == expected));
        assert_eq!(fixture.engine.image.flushes(), flushes);
    }
}

#[test]
fn what_the_host_lost_is_said_of_every_flush() {
    let error = io::Error::from_raw_os_error;
    for kind in KINDS {
        let mut fixture = fixture(kind, CacheMode::Writeback, false);
        let mut other = fixture.disk.engine(kind, DEPTH).unwrap();
        let image = Arc::clone(&fixture.engine.image);
        let write = |engine: &mut Engine, durable| {
            let mut bytes = vec![1; 512];
            let buffers = [buffer(&mut bytes)];
            let sector = 3;
            let operation = Operation::Write {
                sector,
                buffers: &buffers,
                durable,
            };
            run(engine, operation)
        };
        // A full disk loses nothing that was taken.
        let direction = Direction::Write { durable: true };
        let transfer = Work::Transfer {
            direction,
            offset: 0,
        };
        image.note_error(&transfer, &error(libc::ENOSPC));
        run(&mut fixture.engine, Operation::Flush).unwrap();

        image.note_error(&Work::Flush, &error(libc::EIO));
        for engine in [&mut fixture.engine, &mut other] {
            write(engine, false).unwrap();
            for _ in 0..2 {
                let lost = run(engine, Operation::Flush).unwrap_err();
                assert!(lost.to_string().contains("os error 5"), "{lost}");
            }
            write(engine, true).unwrap_err();
            assert!(engine.has_lost_writes());
        }
    }
}

/// How much memory of this process the kernel holds.
fn pinned_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

#[test]
fn memory_that_the_kernel_holds_is_transferred_like_any_other() {
    let mut fixture = fixture(EngineKind::IoUring, CacheMode::None, false);
    // Three pages with an aligned one in them.
    let mut memory = vec![0_u8; 3 * 4096];
    let whole = buffer(&mut memory);
    // SAFETY: the memory is dropped after the engine, which is dropped in this function's last line.
    let registered = unsafe { fixture.engine.register_memory(&[whole]) };
    assert!(registered.unwrap());
    let start = memory.as_ptr().align_offset(4096);
    for (first, length) in [(start, 4096), (start, 512), (start + 512, 4096)] {
        memory.fill(0);
        let buffers = [buffer(&mut memory[first..first + length])];
        let read = Operation::Read {
            sector: 9,
            buffers: &buffers,
        };
        run(&mut fixture.engine, read).unwrap();
        assert!(memory[first..first + 512].iter().all(|&byte| byte == 9));
        let write = Operation::Write {
            sector: 20,
            buffers: &buffers,
            durable: true,
        };
        run(&mut fixture.engine, write).unwrap();
        let content = fs::read(&fixture.options.path).unwrap();
        assert_eq!(
            content[20 * 512..20 * 512 + length],
            memory[first..first + length]
        );
    }
    assert!(pinned_kib() > 0);
    fixture.engine.release_memory();
    assert_eq!(pinned_kib(), 0);
    let buffers = [buffer(&mut memory[start..start + 4096])];
    let read = Operation::Read {
        sector: 9,
        buffers: &buffers,
    };
    run(&mut fixture.engine, read).unwrap();
    let mut buffered = fixture_of_writeback();
    // SAFETY: the memory is dropped after the engine.
    let registered = unsafe { buffered.engine.register_memory(&[whole]) };
    assert!(!registered.unwrap());
    drop((fixture, buffered));
}

fn fixture_of_writeback() -> Fixture {
    fixture(EngineKind::IoUring, CacheMode::Writeback, false)
}

#[test]
fn files_in_memory_and_in_the_page_cache_are_served_at_once() {
    let program = std::env::current_exe().unwrap();
    for directory in [std::path::Path::new("/dev/shm"), program.parent().unwrap()] {
        for kind in [EngineKind::IoUring, EngineKind::Threads] {
            let mut fixture = fixture_in(directory, kind, CacheMode::Writeback, false);
            let mut bytes = vec![3; 4096];
            let buffers = [buffer(&mut bytes)];
            let write = Operation::Write {
                sector: 0,
                buffers: &buffers,
                durable: false,
            };
            fixture.engine.submit(1, write);
            let completion = fixture.engine.next_completion().unwrap();
            assert_eq!(completion.tag, 1);
            completion.result.unwrap();
            fixture.engine.commit().unwrap();
            let read = Operation::Read {
                sector: 0,
                buffers: &buffers,
            };
            fixture.engine.submit(2, read);
            let completion = fixture.engine.next_completion().unwrap();
            assert_eq!(completion.tag, 2);
            completion.result.unwrap();
            // Nobody was asked to do anything.
            assert_eq!(fixture.engine.in_flight(), 0);
        }
    }
}

#[test]
fn a_disk_grows_under_its_engines() {
    let mut fixture = fixture(EngineKind::IoUring, CacheMode::Writeback, false);
    let mut bytes = vec![1; 512];
    let buffers = [buffer(&mut bytes)];
    let write = Operation::Write {
        sector: SECTORS,
        buffers: &buffers,
        durable: false,
    };
    let error = run(&mut fixture.engine, write).unwrap_err();
    assert!(matches!(error, IoError::OutOfRange));
    assert!(fixture.disk.grow(SECTORS * 512 - 512).is_err());
    assert!(fixture.disk.grow(SECTORS * 512 + 1).is_err());
    assert_eq!(fixture.disk.grow(SECTORS * 512).unwrap(), SECTORS * 512);
    assert_eq!(
        fixture.disk.grow(SECTORS * 512 + 512).unwrap(),
        SECTORS * 512 + 512
    );
    assert_eq!(fixture.disk.sectors(), SECTORS + 1);
    run(&mut fixture.engine, write).unwrap();
    let content = fs::read(&fixture.options.path).unwrap();
    assert_eq!(content[64 * 512..], [1; 512]);
}

#[test]
fn more_pieces_than_one_system_call_takes_are_transferred() {
    for kind in KINDS {
        pieces(kind);
    }
}

fn pieces(kind: EngineKind) {
    let mut fixture = fixture(kind, CacheMode::Writeback, false);
    let mut bytes = vec![0; 8 * 512];
    let buffers: Vec<IoBuffer> = bytes.chunks_mut(2).map(buffer).collect();
    assert!(buffers.len() > VECTORS_MAX);
    run(
        &mut fixture.engine,
        Operation::Read {
            sector: 40,
            buffers: &buffers,
        },
    )
    .unwrap();
    assert!(
        bytes
            .chunks(512)
            .zip(40..)
            .all(|(sector, number)| sector.iter().all(|&byte| byte == number))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any position and any memory, with and without the page cache, is the same as a plain file.
    #[test]
    fn any_alignment_is_served(
        kind in prop::sample::select(&KINDS[..]),
        requests in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0..SECTORS, 1..=SECTORS, 0_usize..600, 0_usize..9), 1..12)
    ) {
        let mut direct = fixture(kind, CacheMode::None, false);
        let mut model = fs::read(&direct.options.path).unwrap();
        for (index, (is_write, durable, sector, sectors, shift, cut)) in requests.into_iter().enumerate() {
            let sectors = sectors.min(SECTORS - sector);
            let length = usize::try_from(sectors * 512).unwrap();
            let start = usize::try_from(sector * 512).unwrap();
            let mut memory = vec![u8::try_from(index).unwrap() | 0x80; length + shift];
            {
                let (first, second) = memory[shift..].split_at_mut(length * cut / 8);
                let buffers = [buffer(first), buffer(second)];
                let operation = if is_write {
                    Operation::Write { sector, buffers: &buffers, durable }
                } else {
                    Operation::Read { sector, buffers: &buffers }
                };
                run(&mut direct.engine, operation).unwrap();
            }
            if is_write {
                model[start..start + length].copy_from_slice(&memory[shift..]);
            } else {
                prop_assert_eq!(&memory[shift..], &model[start..start + length]);
            }
        }
        prop_assert_eq!(fs::read(&direct.options.path).unwrap(), model);
    }
}
