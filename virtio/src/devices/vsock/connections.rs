//! The connections that there are: found by their ports or by the number that epoll gives, in turn for the
//! guest's buffers. Their number is bounded, and so is all that is kept for them.

use std::collections::{HashMap, VecDeque};

use super::connection::{Connection, Ports};
use super::host_stream::HostStream;
use super::packet::Header;

/// Refusals that can wait for buffers of the guest. With as many waiting the device takes no more packets
/// (virtio 1.3, 5.10.6.1.2).
pub(super) const REFUSALS_MAX: usize = 64;
/// Where the ports of the host's clients begin, above those that servers have.
const FIRST_CLIENT_PORT: u32 = 1 << 30;
/// How many ticks of a second a client has for its first line.
const FIRST_LINE_TICKS: u8 = 30;

/// A stream of the host, and what it is connected to.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stream: HostStream,
    pub(super) peer: Peer,
    /// It is in the queue for the guest's buffers.
    is_queued: bool,
}

/// What the host's stream speaks to.
#[derive(Debug)]
pub(super) enum Peer {
    /// Nobody yet: the client has not said which port it wants. With the ticks that it took so far.
    Unknown(u8),
    /// The guest.
    Guest(Connection),
}

/// All of a device's connections.
#[derive(Debug)]
pub(super) struct Connections {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    by_ports: HashMap<Ports, usize>,
    /// Those that may have something for the guest, in the order of their turns.
    turns: VecDeque<usize>,
    refusals: VecDeque<Header>,
    next_client_port: u32,
}

impl Connections {
    /// None yet, and at most `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            entries: std::iter::repeat_with(|| None).take(limit).collect(),
            free: (0..limit).rev().collect(),
            by_ports: HashMap::with_capacity(limit),
            turns: VecDeque::with_capacity(limit),
            refusals: VecDeque::with_capacity(REFUSALS_MAX),
            next_client_port: FIRST_CLIENT_PORT,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.free.len())
    }

    /// Whether there is room for another one.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Adds a stream; gives its number, `None` when there is no room.
    pub(super) fn insert(&mut self, stream: HostStream, peer: Peer) -> Option<usize> {
        let number = *self.free.last()?;
        let place = self.entries.get_mut(number)?;
        if let Peer::Guest(connection) = &peer {
            self.by_ports.insert(connection.ports(), number);
        }
        *place = Some(Entry {
            stream,
            peer,
            is_queued: false,
        });
        self.free.pop();
        Some(number)
    }

    /// The client with this number wants a port of the guest. Gives its own port.
    pub(super) fn ask_guest(&mut self, number: usize, guest_port: u32) {
        let ports = self.client_ports(guest_port);
        if let Some(entry) = self.get(number) {
            entry.peer = Peer::Guest(Connection::to_guest(ports));
            self.by_ports.insert(ports, number);
        }
    }

    /// Ports that no connection has. There are fewer connections than ports, so that this ends.
    fn client_ports(&mut self, guest: u32) -> Ports {
        loop {
            let host = self.next_client_port;
            self.next_client_port = match host {
                // The highest is no port, but a word for any (VMADDR_PORT_ANY of vsock(7)).
                0xffff_fffe.. => FIRST_CLIENT_PORT,
                _ => host.saturating_add(1),
            };
            let ports = Ports { host, guest };
            if !self.by_ports.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// The entry with this number.
    pub(super) fn get(&mut self, number: usize) -> Option<&mut Entry> {
        self.entries.get_mut(number)?.as_mut()
    }

    /// The stream with this number and its connection, if it has one already.
    pub(super) fn connected(
        &mut self,
        number: usize,
    ) -> Option<(&mut HostStream, &mut Connection)> {
        match self.get(number)? {
            Entry {
                stream,
                peer: Peer::Guest(connection),
                ..
            } => Some((stream, connection)),
            Entry { .. } => None,
        }
    }

    /// The number of the connection with these ports.
    pub(super) fn find(&self, ports: Ports) -> Option<usize> {
        self.by_ports.get(&ports).copied()
    }

    /// The numbers that there can be, each with an entry or without.
    pub(super) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.entries.len()
    }

    /// The guest may use its port again, while the host's stream is still there.
    pub(super) fn release_ports(&mut self, number: usize) {
        let entry = self.entries.get(number).and_then(Option::as_ref);
        if let Some(Peer::Guest(connection)) = entry.map(|entry| &entry.peer)
            && self.find(connection.ports()) == Some(number)
        {
            self.by_ports.remove(&connection.ports());
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, number: usize) -> Option<Entry> {
        self.release_ports(number);
        let entry = self.entries.get_mut(number)?.take()?;
        if entry.is_queued {
            self.turns.retain(|&other| other != number);
        }
        self.free.push(number);
        Some(entry)
    }

    /// Gives a connection a turn, if it has something for the guest.
    pub(super) fn queue(&mut self, number: usize) {
        let Some(entry) = self.entries.get_mut(number).and_then(Option::as_mut) else {
            return;
        };
        let Peer::Guest(connection) = &entry.peer else {
            return;
        };
        if !entry.is_queued && connection.next(entry.stream.has_data()).is_some() {
            entry.is_queued = true;
            self.turns.push_back(number);
        }
    }

    /// The connection whose turn it is.
    pub(super) fn next_turn(&mut self) -> Option<usize> {
        let number = self.turns.pop_front()?;
        if let Some(entry) = self.get(number) {
            entry.is_queued = false;
        }
        Some(number)
    }

    /// Whether something can be sent to the guest.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty() || !self.refusals.is_empty()
    }

    /// Has a packet of the guest's refused, for which there is [`refusal_room`](Self::refusal_room).
    pub(super) fn refuse(&mut self, header: &Header) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push_back(header.refusal());
        }
    }

    /// How many more refusals can wait.
    pub(super) fn refusal_room(&self) -> usize {
        REFUSALS_MAX.saturating_sub(self.refusals.len())
    }

    /// The refusal that has waited longest.
    pub(super) fn take_refusal(&mut self) -> Option<Header> {
        self.refusals.pop_front()
    }
}

impl Entry {
    /// Its connection, if it has one already.
    pub(super) const fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.peer {
            Peer::Guest(connection) => Some(connection),
            Peer::Unknown(_) => None,
        }
    }

    /// A second has passed. Returns whether the stream has had its time.
    pub(super) fn tick(&mut self) -> bool {
        match &mut self.peer {
            Peer::Unknown(ticks) => {
                *ticks = ticks.saturating_add(1);
                *ticks > FIRST_LINE_TICKS
            }
            Peer::Guest(connection) => {
                connection.tick();
                false
            }
        }
    }

    /// Whether time counts for it.
    pub(super) fn is_timed(&self) -> bool {
        match &self.peer {
            Peer::Unknown(_) => true,
            Peer::Guest(connection) => connection.waits_for_guest(),
        }
    }
}
