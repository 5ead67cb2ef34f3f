//! Between the guest's packets and the host's streams: what a device keeps while it is stopped, too.
//!
//! On the device's worker while that runs; otherwise with the device, whose transport holds it.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use crate::queue::{Buffers, DescriptorChain};
use crate::tap::IoVectorStorage;
use crate::worker::{Fault, OwnEvents};

use super::VsockOptions;
use super::connection::{Connection, Outgoing, Ports, Received};
use super::connections::{Connections, Entry, Peer};
use super::counters::VsockCounters;
use super::host_socket::HostSocket;
use super::host_stream::{Closed, FirstLine, HostStream, Read};
use super::packet::{HEADER_BYTES, HOST_CID, Header, Operation, TYPE_STREAM};

/// Bytes of a header, as lengths of buffers are counted.
pub(super) const HEADER_LENGTH: u64 = 44;
const _: () = assert!(HEADER_BYTES == 44);
/// Most data of one packet: after so much it is another connection's turn.
const DATA_MAX_BYTES: u32 = 64 * 1024;
/// What epoll tells of streams by: this and their number.
const FIRST_STREAM_TOKEN: u32 = 2;

/// The host's side of a device.
#[derive(Debug)]
pub(super) struct Backend {
    name: String,
    guest_cid: u64,
    host: Arc<HostSocket>,
    pub(super) connections: Connections,
    counters: Arc<VsockCounters>,
    vectors: IoVectorStorage,
    /// Clients may wait for room among the connections.
    clients_wait: bool,
    /// The host gave no descriptor for a client: to be tried again.
    accept_failed: bool,
    has_told_of_refusals: bool,
    /// Time counts for something since this was last looked at.
    pub(super) is_timed: bool,
}

impl Backend {
    pub(super) fn new(
        options: &VsockOptions,
        host: Arc<HostSocket>,
        counters: Arc<VsockCounters>,
    ) -> Self {
        Self {
            name: options.name.clone(),
            guest_cid: u64::from(options.guest_cid),
            host,
            connections: Connections::new(usize::from(options.connections)),
            counters,
            vectors: IoVectorStorage::new(),
            clients_wait: false,
            accept_failed: false,
            has_told_of_refusals: false,
            is_timed: false,
        }
    }

    /// What tells of clients.
    pub(super) fn listener(&self) -> RawFd {
        self.host.as_raw_fd()
    }

    /// Registers the streams that are there already.
    pub(super) fn begin(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        for number in self.connections.numbers() {
            if let Some(entry) = self.connections.get(number) {
                watch(number, entry, events)?;
                self.is_timed |= entry.is_timed();
            }
        }
        // Nobody looked while the device stood still.
        self.clients_wait = true;
        Ok(())
    }

    /// Takes in the clients that wait, as far as there is room.
    pub(super) fn accept(&mut self, events: &mut OwnEvents<'_, '_>) {
        self.clients_wait = false;
        self.accept_failed = false;
        loop {
            if !self.connections.has_room() {
                self.clients_wait = true;
                break;
            }
            match self.host.accept() {
                Ok(socket) => {
                    let stream = HostStream::new(socket);
                    // The stream is closed where it cannot be waited for.
                    let _refused = self.add(stream, Peer::Unknown(0), events);
                    self.is_timed = true;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.tell_of_refusal("take a client in", &error);
                        self.accept_failed = true;
                        self.is_timed = true;
                        break;
                    }
                },
            }
        }
    }

    /// Whether [`accept`](Self::accept) should be called again, for there is room now.
    pub(super) fn should_accept(&self) -> bool {
        self.clients_wait && self.connections.has_room()
    }

    /// Adds a stream and waits for it; its number, if that is possible.
    fn add(
        &mut self,
        stream: HostStream,
        peer: Peer,
        events: &mut OwnEvents<'_, '_>,
    ) -> Option<usize> {
        let number = self.connections.insert(stream, peer)?;
        let entry = self.connections.get(number)?;
        if let Err(fault) = watch(number, entry, events) {
            self.tell_of_refusal("take a connection in", &fault);
            self.connections.remove(number);
            return None;
        }
        self.counters.set_open(self.connections.len());
        Some(number)
    }

    /// Says why the host refuses, once: a guest, or a client, can have it happen any number of times.
    fn tell_of_refusal(&mut self, what: &str, error: &dyn std::error::Error) {
        if !std::mem::replace(&mut self.has_told_of_refusals, true) {
            tracing::warn!(
                device = %self.name,
                socket = %self.host.path().display(),
                "cannot {what}: {error}; later ones are only counted"
            );
        }
    }

    /// epoll says something of the stream with this token.
    pub(super) fn stream_ready(
        &mut self,
        token: u32,
        ready: EventSet,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        let number = token.checked_sub(FIRST_STREAM_TOKEN);
        let Some(number) = number.and_then(|number| usize::try_from(number).ok()) else {
            return Ok(());
        };
        let Some(entry) = self.connections.get(number) else {
            return Ok(());
        };
        entry.stream.note_ready(ready);
        match entry.peer {
            Peer::Unknown(_) => self.take_first_line(number, events),
            Peer::Guest(_) => self.go_on(number, events),
        }
    }

    fn take_first_line(
        &mut self,
        number: usize,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        let Some(entry) = self.connections.get(number) else {
            return Ok(());
        };
        match entry.stream.read_first_line() {
            FirstLine::Incomplete => Ok(()),
            FirstLine::Wrong => self.remove(number, events),
            FirstLine::Port(port) => {
                self.connections.ask_guest(number, port);
                self.go_on(number, events)
            }
        }
    }

    /// Takes a packet of the guest's.
    pub(super) fn take_packet(
        &mut self,
        chain: &DescriptorChain,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        let readable = chain.readable();
        let Some((_, data)) = readable.split_at(HEADER_LENGTH) else {
            self.drop_packet("it is shorter than a header");
            return Ok(());
        };
        let mut bytes = [0; HEADER_BYTES];
        readable.copy_to(&mut bytes);
        let header = Header::from_bytes(&bytes);
        if header.source_cid != self.guest_cid || header.destination_cid != HOST_CID {
            self.drop_packet("it is not from this guest to the host");
            return Ok(());
        }
        let operation = Operation::from_number(header.operation);
        let ports = Ports {
            host: header.destination_port,
            guest: header.source_port,
        };
        let known = self.connections.find(ports);
        match (known, operation) {
            _ if header.socket_type != TYPE_STREAM => self.refuse(&header, operation),
            (Some(number), Some(operation)) => {
                return self.take_packet_of(number, operation, &header, data, events);
            }
            (Some(number), None) => {
                if let Some(connection) = self.connection(number) {
                    connection.abort();
                }
                return self.go_on(number, events);
            }
            (None, Some(Operation::Request)) => self.connect(ports, &header, events),
            (None, _) => self.refuse(&header, operation),
        }
        Ok(())
    }

    /// Refuses a packet, unless it is a refusal itself.
    fn refuse(&mut self, header: &Header, operation: Option<Operation>) {
        if operation != Some(Operation::Reset) {
            self.connections.refuse(header);
        }
    }

    fn drop_packet(&self, why: &str) {
        if self.counters.dropped.add(1) == 0 {
            tracing::warn!(
                device = %self.name,
                "a packet of the guest's is dropped: {why}; later ones are only counted"
            );
        }
    }

    /// The guest wants whoever listens for a port of the host.
    fn connect(&mut self, ports: Ports, request: &Header, events: &mut OwnEvents<'_, '_>) {
        let stream = match self.connections.has_room() {
            true => self.host.connect(ports.host),
            false => Err(ErrorKind::QuotaExceeded.into()),
        };
        let added = match stream {
            Ok(socket) => {
                let peer = Peer::Guest(Connection::from_guest(ports, request));
                self.add(HostStream::new(socket), peer, events)
            }
            Err(error) => {
                let nobody = [
                    ErrorKind::NotFound,
                    ErrorKind::ConnectionRefused,
                    ErrorKind::WouldBlock,
                    ErrorKind::QuotaExceeded,
                ];
                if !nobody.contains(&error.kind()) {
                    self.tell_of_refusal("reach a server for the guest", &error);
                }
                None
            }
        };
        match added {
            Some(number) => {
                self.counters.opened.add(1);
                self.connections.queue(number);
            }
            None => {
                self.counters.refused.add(1);
                self.connections.refuse(request);
            }
        }
    }

    fn take_packet_of(
        &mut self,
        number: usize,
        operation: Operation,
        header: &Header,
        data: Buffers<'_>,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<(), Fault> {
        let Some((stream, connection)) = self.connections.connected(number) else {
            return Ok(());
        };
        let data = data.split_at(u64::from(header.length));
        if operation == Operation::Data && data.is_none() {
            // It has less data than it says.
            connection.abort();
            return self.go_on(number, events);
        }
        match connection.receive(operation, header) {
            Received::Nothing => {}
            Received::Established => {
                self.counters.opened.add(1);
                if let Err(Closed) = stream.write_greeting(connection.ports().host) {
                    connection.end_host_receiving();
                }
            }
            Received::Data => {
                self.counters.from_guest.add(u64::from(header.length));
                if let Some((data, _)) = data {
                    pass_on(stream, connection, data, header.length, &mut self.vectors);
                }
            }
            Received::Refused => {
                self.counters.refused.add(1);
                self.connections.release_ports(number);
            }
            Received::Ended => self.connections.release_ports(number),
        }
        self.go_on(number, events)
    }

    /// Does what a connection's state asks for on the host's side, and gives it its turn.
    fn go_on(&mut self, number: usize, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        let Some((stream, connection)) = self.connections.connected(number) else {
            return Ok(());
        };
        let flushed = match stream.is_hung_up() {
            true => Err(Closed),
            false => stream.flush(),
        };
        match flushed {
            Ok(bytes) => connection.note_forwarded(bytes),
            Err(Closed) => {
                stream.discard();
                connection.end_host_receiving();
            }
        }
        if connection.guest_sends_no_more() {
            stream.end_writing();
        }
        if connection.guest_receives_no_more() {
            stream.end_reading();
        }
        if connection.is_gone() && stream.is_flushed() {
            return self.remove(number, events);
        }
        self.is_timed |= connection.waits_for_guest();
        self.connections.queue(number);
        Ok(())
    }

    /// Writes the next packet for the guest into `buffers`, which have room for a header. Returns how many bytes
    /// it has, `None` when there is none.
    pub(super) fn fill(
        &mut self,
        buffers: Buffers<'_>,
        events: &mut OwnEvents<'_, '_>,
    ) -> Result<Option<u32>, Fault> {
        if let Some(refusal) = self.connections.take_refusal() {
            buffers.copy_from(&refusal.to_bytes());
            return Ok(u32::try_from(HEADER_BYTES).ok());
        }
        // A connection that had nothing does not come again by itself.
        while let Some(number) = self.connections.next_turn() {
            let filled = self.fill_from(number, buffers);
            let is_gone = self.connection(number).is_some_and(|it| it.is_gone());
            if is_gone {
                self.remove(number, events)?;
            } else {
                self.connections.queue(number);
            }
            if filled.is_some() {
                return Ok(filled);
            }
        }
        Ok(None)
    }

    fn fill_from(&mut self, number: usize, buffers: Buffers<'_>) -> Option<u32> {
        let (stream, connection) = self.connections.connected(number)?;
        let outgoing = connection.next(stream.has_data())?;
        let (head, room) = buffers.split_at(HEADER_LENGTH)?;
        let mut length = 0;
        if let Outgoing::Data(most) = outgoing {
            let most = u64::from(most.min(DATA_MAX_BYTES)).min(room.len());
            if most == 0 {
                // The guest gets its buffer back, of no use as it is.
                return Some(0);
            }
            match stream.read(room.split_at(most)?.0, &mut self.vectors) {
                Read::Bytes(bytes) => length = bytes,
                Read::Nothing => return None,
                Read::End => {
                    connection.end_host_sending();
                    if stream.is_hung_up() {
                        stream.discard();
                        connection.end_host_receiving();
                    }
                    return None;
                }
            }
        }
        let header = connection.send(outgoing, length, self.guest_cid);
        head.copy_from(&header.to_bytes());
        self.counters.to_guest.add(u64::from(length));
        self.is_timed |= connection.waits_for_guest();
        u32::try_from(HEADER_BYTES).ok()?.checked_add(length)
    }

    /// A second has passed. Returns whether the next one counts as well.
    pub(super) fn tick(&mut self, events: &mut OwnEvents<'_, '_>) -> Result<bool, Fault> {
        self.is_timed = false;
        if self.accept_failed {
            self.accept(events);
        }
        for number in self.connections.numbers() {
            let Some(entry) = self.connections.get(number) else {
                continue;
            };
            if entry.tick() {
                self.remove(number, events)?;
                continue;
            }
            self.is_timed |= entry.is_timed();
            self.go_on(number, events)?;
        }
        Ok(self.is_timed)
    }

    fn connection(&mut self, number: usize) -> Option<&mut Connection> {
        self.connections.get(number)?.connection()
    }

    fn remove(&mut self, number: usize, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
        if let Some(entry) = self.connections.remove(number) {
            events.remove(entry.stream.as_raw_fd())?;
        }
        self.counters.set_open(self.connections.len());
        Ok(())
    }
}

/// Passes `length` bytes of data on.
fn pass_on(
    stream: &mut HostStream,
    connection: &mut Connection,
    data: Buffers<'_>,
    length: u32,
    vectors: &mut IoVectorStorage,
) {
    if connection.host_receives_no_more() {
        connection.note_forwarded(length);
        return;
    }
    match stream.write(data, vectors) {
        Ok(bytes) => connection.note_forwarded(bytes),
        Err(Closed) => {
            stream.discard();
            connection.end_host_receiving();
        }
    }
}

fn watch(number: usize, entry: &Entry, events: &mut OwnEvents<'_, '_>) -> Result<(), Fault> {
    let token = u32::try_from(number).unwrap_or(u32::MAX);
    events.add(
        entry.stream.as_raw_fd(),
        token.saturating_add(FIRST_STREAM_TOKEN),
        HostStream::events(),
    )
}
