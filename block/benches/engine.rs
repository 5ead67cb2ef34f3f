//! `cargo bench -p block`: the engines against the host's own io_uring and pread/pwrite, random 4 KiB.
//!
//! In each round every contender does the same number of requests at the same places, one contender after
//! the other; a ratio is the median of the rounds' ratios, so that what else the machine does cancels out.
//! An engine's requests are submitted and waited for as a device's thread does it, by the event. The host's
//! io_uring is used as fio does: registered file, as many entries handed over as have completed, and a wait
//! for one.
//!
//! Arguments: a word that cases must have in their name; `--quick` for a few rounds.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use block::{CacheMode, Disk, DiskOptions, Engine, EngineKind, IoBuffer, Operation};
use io_uring::{IoUring, opcode, types::Fixed};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const BLOCK_BYTES: usize = 4096;
const FILE_BLOCKS: u64 = 16 << 10;

/// What is measured: all contenders do this.
#[derive(Clone, Copy)]
struct Case<'a> {
    path: &'a Path,
    direct: bool,
    writes: bool,
    depth: usize,
    requests: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Contender {
    HostUring,
    HostSync,
    Engine(EngineKind),
}

const CONTENDERS: [(&str, Contender); 5] = [
    ("host io_uring", Contender::HostUring),
    ("host pread/pwrite", Contender::HostSync),
    ("engine io_uring", Contender::Engine(EngineKind::IoUring)),
    ("engine threads", Contender::Engine(EngineKind::Threads)),
    ("engine sync", Contender::Engine(EngineKind::Sync)),
];

/// Positions in blocks, the same for each who starts with the same seed.
struct Positions(u64);

impl Positions {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % FILE_BLOCKS
    }
}

/// Memory as a guest has it: aligned blocks, one for each request under way.
struct Memory {
    bytes: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(depth: usize) -> Self {
        let bytes = vec![0x5a; (depth + 1) * BLOCK_BYTES];
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Self { bytes, start }
    }

    fn block(&mut self, index: usize) -> &mut [u8] {
        let start = self.start + index * BLOCK_BYTES;
        &mut self.bytes[start..start + BLOCK_BYTES]
    }
}

fn main() {
    let mut quick = false;
    let mut filter = String::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => quick = true,
            "--bench" => {}
            word => word.clone_into(&mut filter),
        }
    }
    let rounds = if quick { 5 } else { 15 };
    println!(
        "{rounds} rounds; medians: requests in a second, and the ratio to the host's io_uring and to the engine sync"
    );
    let program = std::env::current_exe().expect("the path of this program");
    let real = program.parent().expect("a folder");
    for (place, directory) in [("tmpfs", Path::new("/dev/shm")), ("file", real)] {
        let directory = tempfile::tempdir_in(directory).expect("a folder");
        let path = directory.path().join("disk.img");
        fill(&path);
        for direct in [false, true] {
            if direct && place == "tmpfs" {
                continue;
            }
            for writes in [false, true] {
                for depth in [1, 32, 256] {
                    let cache = if direct { "direct" } else { "cached" };
                    let kind = if writes { "write" } else { "read" };
                    let name = format!("{place} {cache} {kind} depth {depth}");
                    if !name.contains(&filter) {
                        continue;
                    }
                    let requests = if direct { 256.max(depth * 2) } else { 4096 };
                    measure(
                        &name,
                        rounds,
                        &Case {
                            path: &path,
                            direct,
                            writes,
                            depth,
                            requests,
                        },
                    );
                }
            }
        }
    }
}

fn fill(path: &PathBuf) {
    let file = File::create(path).expect("a file");
    let chunk = vec![1; 1 << 20];
    for index in 0..(FILE_BLOCKS * BLOCK_BYTES as u64) >> 20 {
        file.write_all_at(&chunk, index << 20)
            .expect("room for the file");
    }
    file.sync_all().expect("a disk");
}

fn measure(name: &str, rounds: usize, case: &Case<'_>) {
    let contenders: Vec<_> = CONTENDERS
        .into_iter()
        .filter(|&(_, contender)| case.depth == 1 || contender != Contender::HostSync)
        .collect();
    let mut times = vec![Vec::new(); contenders.len()];
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for round in 0..=rounds {
        seed += 2;
        for (&(_, contender), times) in contenders.iter().zip(&mut times) {
            let time = run(contender, case, seed);
            // The first round warms everything up.
            if round > 0 {
                times.push(time.as_secs_f64());
            }
        }
    }
    println!("{name}");
    let position = |wanted| contenders.iter().position(|&(_, other)| other == wanted);
    let host = position(Contender::HostUring).expect("it takes part");
    let sync = position(Contender::Engine(EngineKind::Sync)).expect("it takes part");
    for (index, (label, _)) in contenders.iter().enumerate() {
        let rate = case.requests as f64 / median(times[index].clone());
        let ratio = |other: usize| {
            median(
                times[other]
                    .iter()
                    .zip(&times[index])
                    .map(|(other, own)| other / own)
                    .collect(),
            )
        };
        println!(
            "  {label:<18} {rate:>10.0}/s  {:>6.2} us  x{:.2} of host io_uring  x{:.2} of engine sync",
            1e6 / rate,
            ratio(host),
            ratio(sync),
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run(contender: Contender, case: &Case<'_>, seed: u64) -> Duration {
    match contender {
        Contender::HostUring => host_uring(case, seed),
        Contender::HostSync => host_sync(case, seed),
        Contender::Engine(kind) => engine(kind, case, seed),
    }
}

fn open(case: &Case<'_>) -> File {
    let flags = if case.direct { libc::O_DIRECT } else { 0 };
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    options.open(case.path).expect("the file")
}

fn host_sync(case: &Case<'_>, seed: u64) -> Duration {
    let file = open(case);
    let mut memory = Memory::new(1);
    let mut positions = Positions(seed);
    let started = Instant::now();
    for _ in 0..case.requests {
        let offset = positions.next() * BLOCK_BYTES as u64;
        let block = memory.block(0);
        if case.writes {
            file.write_all_at(block, offset).expect("a write");
        } else {
            file.read_exact_at(block, offset).expect("a read");
        }
    }
    started.elapsed()
}

fn host_uring(case: &Case<'_>, seed: u64) -> Duration {
    let file = open(case);
    let mut memory = Memory::new(case.depth);
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::try_from(case.depth).expect("a small depth"))
        .expect("io_uring");
    ring.submitter()
        .register_files(&[file.as_raw_fd()])
        .expect("a place for a file");
    let mut positions = Positions(seed);
    let started = Instant::now();
    let (mut submitted, mut completed) = (0, 0);
    let mut free: Vec<usize> = (0..case.depth).collect();
    while completed < case.requests {
        while submitted < case.requests
            && let Some(index) = free.pop()
        {
            let offset = positions.next() * BLOCK_BYTES as u64;
            let start = memory.block(index).as_mut_ptr();
            let length = u32::try_from(BLOCK_BYTES).expect("a small block");
            let entry = if case.writes {
                opcode::Write::new(Fixed(0), start, length)
                    .offset(offset)
                    .build()
            } else {
                opcode::Read::new(Fixed(0), start, length)
                    .offset(offset)
                    .build()
            };
            // SAFETY: the block is used by this request alone, and stays until it has completed.
            unsafe { ring.submission().push(&entry.user_data(index as u64)) }.expect("room");
            submitted += 1;
        }
        ring.submit_and_wait(1).expect("a completion");
        for entry in ring.completion() {
            assert_eq!(usize::try_from(entry.result()), Ok(BLOCK_BYTES));
            free.push(usize::try_from(entry.user_data()).expect("an index"));
            completed += 1;
        }
    }
    started.elapsed()
}

fn engine(kind: EngineKind, case: &Case<'_>, seed: u64) -> Duration {
    let options = DiskOptions {
        cache: if case.direct {
            CacheMode::None
        } else {
            CacheMode::Writeback
        },
        lock: false,
        ..DiskOptions::new(case.path)
    };
    let disk = Disk::open(&options).expect("the disk");
    let mut memory = Memory::new(case.depth);
    let mut engine: Engine = disk.engine(kind, case.depth).expect("an engine");
    let epoll = Epoll::new().expect("epoll");
    let interest = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    epoll
        .ctl(ControlOperation::Add, engine.event().as_raw_fd(), interest)
        .expect("a place for an event");
    let mut positions = Positions(seed);
    let started = Instant::now();
    let (mut submitted, mut completed) = (0, 0);
    let mut free: Vec<usize> = (0..case.depth).collect();
    while completed < case.requests {
        while submitted < case.requests
            && let Some(index) = free.pop()
        {
            let sector = positions.next() * (BLOCK_BYTES as u64 / 512);
            let block = memory.block(index);
            // SAFETY: the block is used by this request alone, and stays until it has completed.
            let buffers = [unsafe { IoBuffer::new(block.as_mut_ptr(), block.len()) }];
            let operation = if case.writes {
                Operation::Write {
                    sector,
                    buffers: &buffers,
                    durable: false,
                }
            } else {
                Operation::Read {
                    sector,
                    buffers: &buffers,
                }
            };
            engine.submit(index as u64, operation);
            submitted += 1;
        }
        engine.commit().expect("a ring");
        let before = completed;
        while let Some(completion) = engine.next_completion() {
            completion.result.expect("a transfer");
            free.push(usize::try_from(completion.tag).expect("an index"));
            completed += 1;
        }
        if completed == before && engine.prepare_wait().expect("a ring") {
            let _interrupted = epoll.wait(-1, &mut [EpollEvent::default()]);
        }
    }
    started.elapsed()
}
