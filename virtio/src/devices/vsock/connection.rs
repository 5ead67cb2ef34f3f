//! One connection as its packets see it (virtio 1.3, 5.10.6): who may say what when, and what is to be said
//! next. Knows no queue and no socket, so that every order of events can be tried.
//!
//! | stage | what happens |
//! |---|---|
//! | `Asking` | a client of the host wants the guest; the request is to be sent |
//! | `Asked` | the guest's answer is waited for |
//! | `Answering` | the guest wanted the host and got it; the response is to be sent |
//! | `Open` | data and ends go both ways |
//! | `Aborting` | something is wrong; the reset is to be sent |
//! | `Gone` | the guest knows nothing of it any more |

use super::credit::{ReceiveCredit, SendCredit};
use super::packet::{HOST_CID, Header, Operation, TYPE_STREAM, shutdown};

/// How many ticks of a second a guest has to answer a request.
const ANSWER_TICKS: u8 = 10;
/// How many ticks a guest has to say that it is done with a connection whose both ends are shut, after the
/// last data that it took.
const END_TICKS: u8 = 30;

/// What names a connection: there is one guest, and one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asking,
    Asked,
    Answering,
    Open,
    Aborting,
    Gone,
}

/// What a packet of the guest's means for the host's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing, or no more than what [`Connection`] says of itself now.
    Nothing,
    /// The guest has taken the connection.
    Established,
    /// The guest does not take the connection.
    Refused,
    /// The data behind the header is to be passed on; [`Connection::note_forwarded`] says when it was.
    Data,
    /// The guest has ended the connection. What it sent before may still be passed on.
    Ended,
}

/// A packet that can be sent to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    Request,
    Response,
    /// Ends the connection.
    Reset,
    /// What the host will not do any more.
    Shutdown(u32),
    CreditUpdate,
    CreditRequest,
    /// At least one and at most this many bytes.
    Data(u32),
}

/// A stream between a socket of the host and one of the guest.
#[derive(Debug)]
pub(super) struct Connection {
    ports: Ports,
    stage: Stage,
    to_guest: SendCredit,
    from_guest: ReceiveCredit,
    /// What the guest will not do any more (5.10.6.5).
    guest_ended: u32,
    /// What the host will not do any more, and what of it the guest was told.
    host_ended: u32,
    told_ended: u32,
    /// The guest wants a credit update.
    update_wanted: bool,
    /// The guest was asked for a credit update, and has given no credit since.
    update_asked: bool,
    ticks: u8,
}

impl Connection {
    /// A client of the host wants to speak to the guest.
    pub(super) fn to_guest(ports: Ports) -> Self {
        Self::new(ports, Stage::Asking)
    }

    /// The guest wanted to speak to the host, by this packet, and somebody listens.
    pub(super) fn from_guest(ports: Ports, request: &Header) -> Self {
        let mut connection = Self::new(ports, Stage::Answering);
        connection.to_guest.update(request);
        connection
    }

    fn new(ports: Ports, stage: Stage) -> Self {
        Self {
            ports,
            stage,
            to_guest: SendCredit::default(),
            from_guest: ReceiveCredit::default(),
            guest_ended: 0,
            host_ended: 0,
            told_ended: 0,
            update_wanted: false,
            update_asked: false,
            ticks: 0,
        }
    }

    /// Its name.
    pub(super) const fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether the guest knows nothing of it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// Whether the guest will send no more data.
    pub(super) fn guest_sends_no_more(&self) -> bool {
        self.is_over() || self.guest_ended & shutdown::SEND != 0
    }

    /// Whether the guest will take no more data.
    pub(super) fn guest_receives_no_more(&self) -> bool {
        self.is_over() || self.guest_ended & shutdown::RECEIVE != 0
    }

    /// Whether the host will take no more data.
    pub(super) const fn host_receives_no_more(&self) -> bool {
        self.host_ended & shutdown::RECEIVE != 0
    }

    /// Whether only the end is missing, or not even that.
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Aborting | Stage::Gone)
    }

    /// Takes a packet of the guest's that has this connection's ports.
    pub(super) fn receive(&mut self, operation: Operation, header: &Header) -> Received {
        if operation == Operation::Reset {
            let was_asked = self.stage == Stage::Asked;
            self.stage = Stage::Gone;
            return match was_asked {
                true => Received::Refused,
                false => Received::Ended,
            };
        }
        if self.is_over() {
            return Received::Nothing;
        }
        if self.to_guest.update(header) {
            self.ticks = 0;
        }
        if self.to_guest.free() > 0 {
            self.update_asked = false;
        }
        match (self.stage, operation) {
            (Stage::Asked, Operation::Response) => {
                self.stage = Stage::Open;
                self.ticks = 0;
                return Received::Established;
            }
            (Stage::Open, Operation::Data) => return self.take_data(header.length),
            (Stage::Open, Operation::Shutdown) => {
                // Once said, it holds.
                self.guest_ended |= header.flags & shutdown::BOTH;
            }
            (Stage::Open, Operation::CreditRequest) => self.update_wanted = true,
            (Stage::Open, Operation::CreditUpdate) => {}
            // A second request, an answer that nobody waits for, or data before the answer.
            _ => self.abort(),
        }
        Received::Nothing
    }

    fn take_data(&mut self, length: u32) -> Received {
        if self.guest_ended & shutdown::SEND != 0 || !self.from_guest.take(length) {
            // It said that it would send no more, or sends more than it may.
            self.abort();
            return Received::Nothing;
        }
        match length {
            0 => Received::Nothing,
            _ => Received::Data,
        }
    }

    /// This much of the guest's data was passed on, or is of no more use.
    pub(super) fn note_forwarded(&mut self, bytes: u32) {
        self.from_guest.note_forwarded(bytes);
    }

    /// The host will send no more data.
    pub(super) const fn end_host_sending(&mut self) {
        self.host_ended |= shutdown::SEND;
    }

    /// The host will take no more data: what it has not taken is of no more use.
    pub(super) fn end_host_receiving(&mut self) {
        self.host_ended |= shutdown::RECEIVE;
        self.from_guest.note_forwarded(u32::MAX);
        if self.guest_ended & shutdown::RECEIVE != 0 {
            // Whatever the host still sends has nobody to take it.
            self.host_ended |= shutdown::SEND;
        }
    }

    /// Something is wrong: the connection ends with a reset.
    pub(super) fn abort(&mut self) {
        self.stage = match self.stage {
            // The guest has not heard of it.
            Stage::Asking | Stage::Gone => Stage::Gone,
            _ => Stage::Aborting,
        };
    }

    /// What is to be sent next, if anything is. `has_data`: the host may have sent data, or its end.
    pub(super) fn next(&self, has_data: bool) -> Option<Outgoing> {
        match self.stage {
            Stage::Asking => Some(Outgoing::Request),
            Stage::Answering => Some(Outgoing::Response),
            Stage::Aborting => Some(Outgoing::Reset),
            Stage::Asked | Stage::Gone => None,
            Stage::Open => self.next_of_open(has_data),
        }
    }

    fn next_of_open(&self, has_data: bool) -> Option<Outgoing> {
        let guest_is_done = self.guest_ended == shutdown::BOTH;
        if guest_is_done && self.from_guest.buffered() == 0 {
            // By this a guest knows that it can use its port again (5.10.6.5).
            return Some(Outgoing::Reset);
        }
        if self.update_wanted || !self.guest_sends_no_more() && self.from_guest.is_worth_telling() {
            return Some(Outgoing::CreditUpdate);
        }
        if self.host_ended & !self.told_ended != 0 {
            return Some(Outgoing::Shutdown(self.host_ended));
        }
        let may_send = self.host_ended & shutdown::SEND == 0 && !self.guest_receives_no_more();
        if !has_data || !may_send {
            return None;
        }
        match self.to_guest.free() {
            0 if self.update_asked => None,
            0 => Some(Outgoing::CreditRequest),
            free => Some(Outgoing::Data(free)),
        }
    }

    /// The header of `outgoing`, which [`next`](Self::next) has given, with `length` bytes of data behind
    /// it; from now on it counts as sent.
    pub(super) fn send(&mut self, outgoing: Outgoing, length: u32, guest_cid: u64) -> Header {
        let mut header = Header {
            source_cid: HOST_CID,
            destination_cid: guest_cid,
            source_port: self.ports.host,
            destination_port: self.ports.guest,
            socket_type: TYPE_STREAM,
            length,
            ..Header::default()
        };
        let operation = match outgoing {
            Outgoing::Request => {
                self.stage = Stage::Asked;
                Operation::Request
            }
            Outgoing::Response => {
                self.stage = Stage::Open;
                Operation::Response
            }
            Outgoing::Reset => {
                self.stage = Stage::Gone;
                Operation::Reset
            }
            Outgoing::Shutdown(flags) => {
                self.told_ended = flags;
                self.ticks = 0;
                header.flags = flags;
                Operation::Shutdown
            }
            Outgoing::CreditUpdate => {
                self.update_wanted = false;
                Operation::CreditUpdate
            }
            Outgoing::CreditRequest => {
                self.update_asked = true;
                Operation::CreditRequest
            }
            Outgoing::Data(_) => {
                self.to_guest.note_sent(length);
                Operation::Data
            }
        };
        header.operation = operation.number();
        self.from_guest.tell(&mut header);
        header
    }

    /// Whether time counts: the guest owes an answer, or the end.
    pub(super) fn waits_for_guest(&self) -> bool {
        self.limit_ticks().is_some()
    }

    /// A second has passed. A guest that has had its time is told that the connection is no more.
    pub(super) fn tick(&mut self) {
        let Some(limit) = self.limit_ticks() else {
            return;
        };
        self.ticks = self.ticks.saturating_add(1);
        if self.ticks > limit {
            self.abort();
        }
    }

    fn limit_ticks(&self) -> Option<u8> {
        match self.stage {
            Stage::Asked => Some(ANSWER_TICKS),
            Stage::Open if self.told_ended == shutdown::BOTH => Some(END_TICKS),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
