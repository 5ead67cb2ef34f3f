use std::fs;

use super::*;
use crate::{CacheMode, Disk, DiskOptions, EngineKind, IoBuffer, IoError, OpenError, Operation};

/// A disk of 1 MiB beside the build, where there is O_DIRECT.
fn image() -> tempfile::NamedTempFile {
    let program = std::env::current_exe().unwrap();
    let file = tempfile::NamedTempFile::new_in(program.parent().unwrap()).unwrap();
    fs::write(file.path(), vec![7; 1 << 20]).unwrap();
    file
}

fn options(file: &tempfile::NamedTempFile, cache: CacheMode, iopoll: IoPoll) -> DiskOptions {
    DiskOptions {
        cache,
        iopoll,
        ..DiskOptions::new(file.path())
    }
}

#[test]
fn who_has_to_poll_and_cannot_is_told_why() {
    let file = image();
    let cached = Disk::open(&options(&file, CacheMode::Writeback, IoPoll::On)).unwrap_err();
    assert!(matches!(
        cached,
        OpenError::NoPolling {
            source: PollRefused::PageCache,
            ..
        }
    ));
    let message = cached.to_string();
    assert!(message.contains("cache=none") && !message.contains('\n'));
    let limits = host::queue_limits(&file.as_file().metadata().unwrap());
    let polls = limits.map(|limits| limits.polls);
    match Disk::open(&options(&file, CacheMode::None, IoPoll::On)) {
        Ok(disk) => assert!(disk.polls() && polls == Some(true)),
        Err(OpenError::NoPolling { source, .. }) => {
            assert_eq!(
                matches!(source, PollRefused::NoQueues),
                polls == Some(false)
            );
            assert_eq!(matches!(source, PollRefused::Unknown), polls.is_none());
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn who_may_poll_is_served_either_way() {
    let file = image();
    let cached = Disk::open(&options(&file, CacheMode::Unsafe, IoPoll::Auto)).unwrap();
    assert!(!cached.polls());
    drop(cached);
    let strict = Disk::open(&options(&file, CacheMode::None, IoPoll::On)).is_ok();
    let disk = Disk::open(&options(&file, CacheMode::None, IoPoll::Auto)).unwrap();
    assert_eq!(disk.polls(), strict);
    assert!(
        !Disk::open(&DiskOptions {
            lock: false,
            ..options(&file, CacheMode::None, IoPoll::Off)
        })
        .unwrap()
        .polls()
    );
}

/// Whatever the host does with polling, found out or not: requests of all kinds side by side complete.
#[test]
fn requests_complete_by_polling_or_without() {
    for cache in [CacheMode::None, CacheMode::DirectSync] {
        let file = image();
        let mut disk = Disk::open(&options(&file, cache, IoPoll::Off)).unwrap();
        disk.poll_regardless();
        let mut engine = disk.engine(EngineKind::IoUring, 64).unwrap();
        let block = 4096;
        let layout = std::alloc::Layout::from_size_align(64 * block, block).unwrap();
        // SAFETY: the size is not zero.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!memory.is_null());
        let piece = |index: usize, length: usize| {
            // SAFETY: within the allocation, which is freed behind the engine.
            [unsafe { IoBuffer::new(memory.wrapping_add(index * block), length) }]
        };
        for round in 0..20_u64 {
            for index in 0..16_usize {
                let sector = u64::try_from(index).unwrap() * 16;
                let write = Operation::Write {
                    sector,
                    buffers: &piece(index, block),
                    durable: index % 5 == 0,
                };
                engine.submit(round, write);
                let read = Operation::Read {
                    sector: sector + 8,
                    buffers: &piece(16 + index, block),
                };
                engine.submit(round, read);
                // Not aligned, which is not for a ring with O_DIRECT.
                let odd = Operation::Read {
                    sector: sector + 9,
                    buffers: &piece(32 + index, 512),
                };
                engine.submit(round, odd);
            }
            engine.submit(round, Operation::Flush);
            engine.commit().unwrap();
            if engine.is_polling() {
                assert!(!engine.prepare_wait().unwrap(), "nobody would wake it");
            }
            engine.drain().unwrap();
            let results: Vec<Result<(), IoError>> = std::iter::from_fn(|| engine.next_completion())
                .map(|completion| {
                    assert_eq!(completion.tag, round);
                    completion.result
                })
                .collect();
            assert_eq!(results.len(), 49);
            assert!(results.iter().all(Result::is_ok), "{results:?}");
            assert!(engine.prepare_wait().unwrap(), "nothing is under way");
        }
        drop(engine);
        // SAFETY: nobody uses the memory any more, of which this much was allocated.
        let bytes = unsafe { std::slice::from_raw_parts(memory, 64 * block) };
        assert!(bytes[16 * block..32 * block].iter().all(|byte| *byte == 7));
        let content = fs::read(file.path()).unwrap();
        for index in 0..16 {
            let start = index * 16 * 512;
            assert!(content[start..start + block].iter().all(|byte| *byte == 0));
            assert_eq!(content[start + block], 7);
        }
        // SAFETY: allocated above with this layout.
        unsafe { std::alloc::dealloc(memory, layout) };
    }
}

#[test]
fn requests_that_would_be_cut_are_not_polled_for() {
    let limits = PollLimits {
        max_bytes: 64 << 10,
        max_segments: 4,
    };
    let fit = |pieces: &[(usize, usize)]| {
        let buffers: Vec<_> = pieces
            .iter()
            .map(|(start, length)| {
                let start = std::ptr::without_provenance_mut(*start);
                // SAFETY: nobody looks into the buffers.
                unsafe { IoBuffer::new(start, *length) }
            })
            .collect();
        limits.fit(&buffers)
    };
    let page = 4096;
    assert!(fit(&[(page, page)]));
    assert!(fit(&[(page + 512, page)]), "over two pages");
    assert!(fit(&[(page, 4 * page)]));
    assert!(!fit(&[(page, 5 * page)]), "too many pages");
    assert!(!fit(&[(page + 512, 4 * page)]), "one more");
    assert!(fit(&[(page + 512, page - 512), (9 * page, page + 512)]));
    assert!(!fit(&[(page, 512), (9 * page, page)]), "a gap");
    assert!(!fit(&[(page, page), (9 * page + 512, 512)]), "a gap");
    let large = PollLimits {
        max_bytes: page as u64,
        ..limits
    };
    // SAFETY: nobody looks into it.
    let buffer = unsafe { IoBuffer::new(std::ptr::without_provenance_mut(page), 2 * page) };
    assert!(!large.fit(&[buffer]));
}
