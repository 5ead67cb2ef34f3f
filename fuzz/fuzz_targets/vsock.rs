//! A socket device behind virtio-mmio, with a guest whose packets lie and a host that comes and goes: headers,
//! credit, buffers, streams, pauses. Nothing panics, nothing grows, the device breaks only by its rings, and a
//! driver that starts over is served.
//!
//! An input is a list of actions; see [`Guest::step`].
#![no_main]

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bus::MmioDevice;
use cuddy_fuzz::{Input, Sink};
use libfuzzer_sys::fuzz_target;
use virtio::GuestMemory;
use virtio::devices::vsock::{HostSocket, Vsock, VsockOptions};
use virtio::transport::MmioTransport;
use virtio::worker::driven;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const STEPS_MAX: usize = 80;
const BASE: u64 = 0xc000_0000;
const MEMORY_BYTES: usize = 2 << 20;
/// Queues: 64 descriptors each, their areas a page apart.
const SIZE: u64 = 64;
const RINGS: u64 = 0x1000;
/// Receive buffers, and packets to send, at places of their own for each descriptor.
const RECEIVE: u64 = 0x2_0000;
const TRANSMIT: u64 = 0x8_0000;
const STRIDE: u64 = 0x4000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const CONNECTIONS: u16 = 6;
const REQUEST: u16 = 1;
const RESET: u16 = 3;
/// Where servers of the host listen; at port 3 none does.
const SERVERS: [u32; 2] = [1, 2];

thread_local! {
    /// Mapped once.
    static MEMORY: Arc<GuestMemory> = {
        let ranges = [(GuestAddress(0), MEMORY_BYTES)];
        Arc::new(GuestMemory::from_ranges(&ranges).expect("memory"))
    };
}

/// The host's paths, which are there as long as the process.
struct Paths {
    /// It is left to the host's keeper of temporary files: nothing runs at the end of a fuzzer.
    folder: PathBuf,
    socket: Arc<HostSocket>,
    servers: [UnixListener; 2],
}

fn paths() -> &'static Paths {
    static PATHS: OnceLock<Paths> = OnceLock::new();
    PATHS.get_or_init(|| {
        let name = format!("cuddy-fuzz-vsock-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let listen = |name: &str| {
            let path = folder.join(name);
            let _none = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).expect("a socket");
            listener.set_nonblocking(true).expect("a socket");
            listener
        };
        let socket = HostSocket::new(listen("vm"), folder.join("vm")).expect("a socket");
        let servers = SERVERS.map(|port| listen(&format!("vm_{port}")));
        Paths {
            socket: Arc::new(socket),
            servers,
            folder,
        }
    })
}

struct Guest {
    transport: MmioTransport,
    memory: Arc<GuestMemory>,
    available: [u64; 3],
    streams: Vec<UnixStream>,
}

impl Guest {
    fn set(&mut self, register: u64, value: u64) {
        let value = u32::try_from(value & 0xffff_ffff).expect("half of it");
        let _effect = self.transport.write(register, &value.to_le_bytes());
    }

    fn status(&mut self) -> u32 {
        let mut data = [0; 4];
        self.transport.read(0x70, &mut data);
        u32::from_le_bytes(data)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .expect("memory");
    }

    fn area(queue: u64, area: u64) -> u64 {
        RINGS + (3 * queue + area) * 0x1000
    }

    /// The set-up of 3.1.1.
    fn start(&mut self) {
        self.set(0x70, 0);
        self.set(0x70, 1);
        self.set(0x70, 3);
        self.set(0x24, 0);
        self.set(0x20, 1);
        self.set(0x24, 1);
        self.set(0x20, 1);
        self.set(0x70, 11);
        for queue in 0..3 {
            self.set(0x30, queue);
            self.set(0x38, if queue == 2 { 16 } else { SIZE });
            for (area, register) in (0..).zip([0x80, 0x90, 0xa0]) {
                self.put(Self::area(queue, area), &[0; 0x1000]);
                self.set(register, Self::area(queue, area));
                self.set(register + 4, 0);
            }
            self.set(0x44, 1);
        }
        self.available = [0; 3];
        self.set(0x70, 15);
    }

    fn used(&self, queue: u64) -> u16 {
        let at = GuestAddress(Self::area(queue, 2) + 2);
        self.memory.read_obj(at).expect("a ring")
    }

    /// Whether all that was made available fits beside another chain of two.
    fn has_room(&self, queue: u64) -> bool {
        let made = self.available[usize::try_from(queue).expect("an index")];
        let made = u16::try_from(made & 0xffff).expect("an index");
        u64::from(made.wrapping_sub(self.used(queue))) < SIZE / 2
    }

    /// Makes one or two buffers available.
    fn offer(&mut self, queue: u64, buffers: &[(u64, u32, u16)]) {
        let count = &mut self.available[usize::try_from(queue).expect("an index")];
        let head = *count * 2 % SIZE;
        let at = *count % SIZE;
        *count += 1;
        let index = u16::try_from(*count & 0xffff).expect("an index");
        for (place, (address, length, flags)) in (0..).zip(buffers) {
            let more = if place + 1 < buffers.len() as u64 {
                NEXT
            } else {
                0
            };
            let next = u16::try_from(head + place + 1).expect("an index");
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&address.to_le_bytes());
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12..14].copy_from_slice(&(flags | more).to_le_bytes());
            bytes[14..].copy_from_slice(&next.to_le_bytes());
            self.put(Self::area(queue, 0) + 16 * (head + place), &bytes);
        }
        let driver = Self::area(queue, 1);
        let head = u16::try_from(head).expect("an index");
        self.put(driver + 4 + 2 * at, &head.to_le_bytes());
        self.put(driver + 2, &index.to_le_bytes());
    }

    fn receive_buffer(&mut self, length: u32) {
        if self.has_room(0) {
            let at = RECEIVE + self.available[0] % 16 * STRIDE;
            self.offer(0, &[(at, length.clamp(1, 0x4000), WRITE)]);
        }
    }

    /// Sends a packet, as good or bad as the input says.
    fn packet(&mut self, input: &mut Input<'_>) {
        if !self.has_room(1) {
            return;
        }
        let good = input.byte();
        let operation = match input.byte() {
            known @ 0..0xf0 => u16::from(known % 8),
            _ => input.word(),
        };
        let guest_port = u32::from(input.byte() % 6);
        let host_port = match input.byte() {
            server @ 0..0xa0 => u32::from(server % 4),
            client @ 0xa0..0xf0 => (1 << 30) + u32::from(client % 8),
            _ => input.double(),
        };
        let data_bytes = match input.byte() {
            0..0x60 => 0,
            small @ 0x60..0xc0 => u32::from(small) * 8,
            _ => u32::from(input.word() & 0x3fff).min(0x3f00),
        };
        let length = if good & 1 == 0 {
            data_bytes
        } else {
            input.double()
        };
        let number = |input: &mut Input<'_>, usual: u32| match input.byte() {
            0..0x80 => usual,
            0x80..0xc0 => u32::from(input.word()),
            _ => u32::try_from(input.number() & 0xffff_ffff).expect("half of it"),
        };
        let flags = u32::from(input.byte() % 5);
        let buffer_bytes = number(input, 1 << 18);
        let forwarded = number(input, 0);
        let mut header = [0; 44];
        let cid: u64 = if good & 0xe == 0xe { input.number() } else { 3 };
        header[..8].copy_from_slice(&cid.to_le_bytes());
        header[8] = if good & 0x70 == 0x70 { input.byte() } else { 2 };
        header[16..20].copy_from_slice(&guest_port.to_le_bytes());
        header[20..24].copy_from_slice(&host_port.to_le_bytes());
        header[24..28].copy_from_slice(&length.to_le_bytes());
        header[28] = if good & 0xf0 == 0xe0 { input.byte() } else { 1 };
        header[30..32].copy_from_slice(&operation.to_le_bytes());
        header[32..36].copy_from_slice(&flags.to_le_bytes());
        header[36..40].copy_from_slice(&buffer_bytes.to_le_bytes());
        header[40..].copy_from_slice(&forwarded.to_le_bytes());
        let at = TRANSMIT + self.available[1] % SIZE * STRIDE;
        self.put(at, &header);
        let cut = 1 + u32::from(good >> 2 & 63);
        let all = 44 + data_bytes;
        match cut < all && good & 2 != 0 {
            true => self.offer(1, &[(at, cut, 0), (at + u64::from(cut), all - cut, 0)]),
            false => self.offer(1, &[(at, all, 0)]),
        }
    }

    /// Something on the host's side.
    fn host(&mut self, input: &mut Input<'_>) {
        for server in &paths().servers {
            while let Ok((stream, _)) = server.accept() {
                self.add(stream);
            }
        }
        let choice = input.byte();
        if choice % 8 == 0 && self.streams.len() < 12 {
            let path = paths().folder.join("vm");
            if let Ok(mut stream) = UnixStream::connect(path) {
                let port = input.byte() % 6;
                let line = match input.byte() {
                    0..0xe0 => format!("CONNECT {port}\n"),
                    0xe0..0xf0 => "CONNECT ".to_owned(),
                    _ => "CONECT 1\n".to_owned(),
                };
                let _closed = stream.write_all(line.as_bytes());
                self.add(stream);
            }
            return;
        }
        let count = self.streams.len();
        if count == 0 {
            return;
        }
        let index = usize::from(input.byte()) % count;
        let stream = &mut self.streams[index];
        match choice % 8 {
            1 | 2 => {
                let bytes = vec![choice; usize::from(input.word())];
                let _full = stream.write(&bytes);
            }
            3 | 4 => {
                let mut bytes = vec![0; 1 + usize::from(input.word())];
                match stream.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Ok(1..) => {}
                    Ok(_) | Err(_) => drop(self.streams.swap_remove(index)),
                }
            }
            5 => {
                let half = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                let _gone = stream.shutdown(input.one_of(&half));
            }
            _ => drop(self.streams.swap_remove(index)),
        }
    }

    fn add(&mut self, stream: UnixStream) {
        stream.set_nonblocking(true).expect("a socket");
        self.streams.push(stream);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..6 => {
                self.packet(input);
                self.set(0x50, 1);
            }
            6 => self.packet(input),
            7 | 8 => {
                for _ in 0..input.byte() % 16 {
                    let length = match input.byte() {
                        linux @ 0..0x80 => 44 + 32 * u32::from(linux),
                        small @ 0x80..0xc0 => u32::from(small & 63),
                        _ => u32::from(input.word()),
                    };
                    self.receive_buffer(length);
                }
                self.set(0x50, 0);
            }
            9..13 => self.host(input),
            13 => driven::run_pending(),
            14 => {
                self.transport.pause();
                self.transport.resume();
            }
            _ => match input.byte() {
                0..0x20 => self.start(),
                0x20..0x80 => self.set(0x50, 2),
                // What a guest does to a ring is another target's.
                _ => self.set(0x50, 1),
            },
        }
        driven::run_pending();
        assert_eq!(self.status(), 15, "a packet breaks the device");
    }

    /// A new driver is served, whatever came before.
    fn finish(&mut self) {
        self.streams.clear();
        self.start();
        let mut header = [0; 44];
        (header[0], header[8], header[20], header[28]) = (3, 2, 3, 1);
        header[30..32].copy_from_slice(&REQUEST.to_le_bytes());
        self.put(TRANSMIT, &header);
        self.offer(1, &[(TRANSMIT, 44, 0)]);
        self.set(0x50, 1);
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let at = RECEIVE + self.available[0] % 16 * STRIDE;
            self.receive_buffer(64);
            self.set(0x50, 0);
            while u64::from(self.used(0)) < self.available[0] {
                assert_eq!(self.status(), 15, "a good driver's device breaks");
                assert!(Instant::now() < end, "a good driver is not served");
                driven::run_pending();
            }
            // A client that was left by itself may have come first.
            let read = |offset| self.memory.read_obj::<u16>(GuestAddress(at + offset));
            if (read(16).expect("memory"), read(30).expect("memory")) == (3, RESET) {
                break;
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    driven::set(true);
    let mut input = Input(bytes);
    let mut options = VsockOptions::new("vsock", 3);
    options.connections = CONNECTIONS;
    let socket = Arc::clone(&paths().socket);
    let device = Vsock::new(socket, options, Arc::default()).expect("good options");
    let memory = MEMORY.with(Arc::clone);
    let cleared = memory.write_slice(&[0; MEMORY_BYTES], GuestAddress(0));
    cleared.expect("memory");
    let event = EventFd::new(EFD_NONBLOCK).expect("an event");
    let sink = Arc::new(Sink);
    let transport = MmioTransport::new(Box::new(device), memory.clone(), BASE, event, sink);
    let mut guest = Guest {
        transport,
        memory,
        available: [0; 3],
        streams: Vec::new(),
    };
    guest.start();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        guest.step(&mut input);
    }
    guest.finish();
});
