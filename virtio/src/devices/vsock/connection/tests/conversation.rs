//! A guest that keeps the rules, and a host, with any interleaving of what they do: everything passes, and
//! the connection ends on both sides.

use proptest::prelude::*;

use super::*;

/// A guest's driver and its program, in numbers of bytes.
#[derive(Debug, Default)]
struct Guest {
    buffer_bytes: u32,
    received: u32,
    read: u32,
    to_send: u32,
    sent: u32,
    host_buffer: u32,
    host_forwarded: u32,
    host_ended: bool,
    ended: u32,
    is_done: bool,
    /// Packets on their way to the device.
    out: std::collections::VecDeque<(Operation, Header)>,
}

impl Guest {
    fn send(&mut self, operation: Operation, length: u32, flags: u32) {
        let header = Header {
            length,
            flags,
            ..header(self.buffer_bytes, self.read)
        };
        self.out.push_back((operation, header));
    }

    fn take(&mut self, packet: &Header) {
        (self.host_buffer, self.host_forwarded) = (packet.buffer_bytes, packet.forwarded_bytes);
        match Operation::from_number(packet.operation).unwrap() {
            Operation::Data => {
                self.received += packet.length;
                assert!(
                    self.received - self.read <= self.buffer_bytes,
                    "beyond credit"
                );
            }
            Operation::Shutdown => self.host_ended |= packet.flags & shutdown::SEND != 0,
            Operation::CreditRequest => self.send(Operation::CreditUpdate, 0, 0),
            Operation::Reset => self.is_done = true,
            _ => {}
        }
    }

    /// The program sends, as far as there is credit and it has something; then it shuts its half.
    fn write(&mut self, most: u32) {
        let credit = self.host_buffer - (self.sent - self.host_forwarded);
        let bytes = most.min(credit).min(self.to_send - self.sent);
        if bytes > 0 {
            self.sent += bytes;
            self.send(Operation::Data, bytes, 0);
        } else if self.sent == self.to_send && self.ended == 0 {
            self.ended = shutdown::SEND;
            self.send(Operation::Shutdown, 0, shutdown::SEND);
        }
    }

    /// The program reads; after the end it closes.
    fn read(&mut self, most: u32) {
        let bytes = most.min(self.received - self.read);
        self.read += bytes;
        if bytes > 0 {
            self.send(Operation::CreditUpdate, 0, 0);
        } else if self.host_ended && self.read == self.received && self.ended == shutdown::SEND {
            self.ended = shutdown::BOTH;
            self.send(Operation::Shutdown, 0, shutdown::BOTH);
        }
    }
}

/// The host's stream, in numbers of bytes.
#[derive(Debug, Default)]
struct Host {
    to_send: u32,
    waiting: u32,
    got: u32,
}

#[derive(Debug, Clone)]
enum Move {
    GuestWrites(u32),
    GuestReads(u32),
    HostReads(u32),
    ToDevice,
    ToGuest(u32),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        (1..90_000_u32).prop_map(Move::GuestWrites),
        (1..90_000_u32).prop_map(Move::GuestReads),
        (1..90_000_u32).prop_map(Move::HostReads),
        Just(Move::ToDevice),
        (1..90_000_u32).prop_map(Move::ToGuest),
    ]
}

fn step(connection: &mut Connection, guest: &mut Guest, host: &mut Host, step: &Move) {
    match *step {
        Move::GuestWrites(most) => guest.write(most),
        Move::GuestReads(most) => guest.read(most),
        Move::HostReads(most) => {
            let bytes = most.min(host.waiting);
            host.waiting -= bytes;
            host.got += bytes;
            connection.note_forwarded(bytes);
        }
        Move::ToDevice => {
            if let Some((operation, header)) = guest.out.pop_front()
                && connection.receive(operation, &header) == Received::Data
            {
                host.waiting += header.length;
            }
        }
        Move::ToGuest(room) => {
            let Some(outgoing) = connection.next(true) else {
                return;
            };
            let mut length = 0;
            if let Outgoing::Data(most) = outgoing {
                length = most.min(room).min(host.to_send);
                host.to_send -= length;
                if length == 0 {
                    connection.end_host_sending();
                    return;
                }
            }
            guest.take(&connection.send(outgoing, length, CID));
        }
    }
}

proptest! {
    #[test]
    fn everything_passes_and_ends(
        buffer_bytes in 64..300_000_u32,
        from_guest in 0..2_000_000_u32,
        to_guest in 0..400_000_u32,
        order in prop::collection::vec(moves(), 0..200),
    ) {
        let mut connection = Connection::from_guest(PORTS, &header(buffer_bytes, 0));
        let mut guest = Guest { buffer_bytes, to_send: from_guest, ..Guest::default() };
        let mut host = Host { to_send: to_guest, ..Host::default() };
        for next in &order {
            step(&mut connection, &mut guest, &mut host, next);
        }
        // Then each does what it can, in turn; a bound that only a standstill reaches.
        let fair = [
            Move::GuestWrites(65_536),
            Move::ToDevice,
            Move::HostReads(65_536),
            Move::ToGuest(65_536),
            Move::GuestReads(65_536),
            Move::ToDevice,
        ];
        let bound = 1000 + 4 * to_guest.div_ceil(buffer_bytes.min(65_536));
        for _ in 0..bound {
            for next in &fair {
                step(&mut connection, &mut guest, &mut host, next);
            }
            if guest.is_done {
                break;
            }
        }
        prop_assert!(guest.is_done && connection.is_gone(), "{:?} {:?} {:?}", connection, guest, host);
        prop_assert_eq!(host.got, from_guest);
        prop_assert_eq!(guest.read, to_guest);
    }
}
