use super::*;
use crate::{CacheMode, Disk, DiskOptions};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::FileExt as _;
use tempfile::TempDir;

const SECTORS: u64 = 64;

struct Fixture {
    options: DiskOptions,
    engine: Engine,
    _directory: TempDir,
}

/// A disk of [`SECTORS`] sectors, each filled with its number, beside the build.
fn fixture(cache: CacheMode, readonly: bool) -> Fixture {
    // On a file system with O_DIRECT, which the one for temporary files may not have.
    let program = std::env::current_exe().unwrap();
    let directory = TempDir::new_in(program.parent().unwrap()).unwrap();
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
    let engine = Disk::open(&options).unwrap().engine().unwrap();
    Fixture {
        options,
        engine,
        _directory: directory,
    }
}

fn buffer(bytes: &mut [u8]) -> IoBuffer {
    // SAFETY: the tests keep the bytes and do not use them while the request runs.
    unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }
}

fn run(engine: &mut Engine, operation: Operation<'_>) -> Result<(), IoError> {
    engine.submit(7, operation);
    let completion = engine.next_completion().unwrap();
    assert_eq!(completion.tag, 7);
    assert!(engine.next_completion().is_none());
    completion.result
}

#[test]
fn reads_and_writes_go_where_they_should() {
    for cache in [CacheMode::Writeback, CacheMode::None] {
        let mut fixture = fixture(cache, false);
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
    let mut fixture = fixture(CacheMode::Writeback, false);
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
    let mut fixture = fixture(CacheMode::Writeback, true);
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
    for (may_unmap, no_zero_range) in [(true, false), (false, false), (false, true)] {
        let mut fixture = fixture(CacheMode::None, false);
        fixture.engine.no_zero_range = no_zero_range;
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
    let mut fixture = fixture(CacheMode::Writeback, false);
    let discard = Operation::Discard {
        sector: 8,
        length_bytes: 8 * 512,
    };
    run(&mut fixture.engine, discard).unwrap();
    assert!(
        fs::read(&fixture.options.path).unwrap()[8 * 512..16 * 512]
            .iter()
            .all(|&byte| byte == 0)
    );
}

#[test]
fn zeros_are_written_in_pieces() {
    let mut fixture = fixture(CacheMode::Writeback, false);
    let file = File::options()
        .write(true)
        .open(&fixture.options.path)
        .unwrap();
    file.set_len(3 * 1024 * 1024).unwrap();
    file.write_all_at(&[1; 8192], 1024 * 1024 - 4096).unwrap();
    fixture
        .engine
        .write_zero_bytes(100, 2 * 1024 * 1024)
        .unwrap();
    let content = fs::read(&fixture.options.path).unwrap();
    assert!(content[100..].iter().all(|&byte| byte == 0));
    assert_eq!(content.len(), 3 * 1024 * 1024);
}

#[test]
fn an_image_that_was_cut_short_is_an_error_of_the_request() {
    let mut fixture = fixture(CacheMode::Writeback, false);
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
            matches!(error, IoError::Host(error) if error.kind() == io::ErrorKind::UnexpectedEof)
        );
    }
}

#[test]
fn a_full_disk_is_an_error_of_the_request() {
    let mut fixture = fixture(CacheMode::Writeback, false);
    let mut bytes = vec![1; 4096];
    let mut rest = Rest::default();
    rest.fill(&[buffer(&mut bytes)]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let write = Direction::Write { durable: false };
    let error = transfer(&full, write, &mut 0, &mut rest).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
    assert!(
        fixture
            .engine
            .log
            .write(&fixture.options.path, &Operation::Flush, &error)
    );
    assert!(
        !fixture
            .engine
            .log
            .write(&fixture.options.path, &Operation::Flush, &error)
    );
}

#[test]
fn more_pieces_than_one_system_call_takes_are_transferred() {
    let mut fixture = fixture(CacheMode::Writeback, false);
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
        requests in prop::collection::vec(
            (any::<bool>(), any::<bool>(), 0..SECTORS, 1..=SECTORS, 0_usize..600, 0_usize..9), 1..12)
    ) {
        let mut direct = fixture(CacheMode::None, false);
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
