use proptest::prelude::*;

use super::super::credit::BUFFER_BYTES;
use super::*;

const PORTS: Ports = Ports { host: 7, guest: 9 };
const CID: u64 = 3;

fn header(buffer_bytes: u32, forwarded_bytes: u32) -> Header {
    Header {
        buffer_bytes,
        forwarded_bytes,
        ..Header::default()
    }
}

/// A connection that the guest has asked for and got.
fn open(buffer_bytes: u32) -> Connection {
    let mut connection = Connection::from_guest(PORTS, &header(buffer_bytes, 0));
    assert_eq!(connection.next(false), Some(Outgoing::Response));
    connection.send(Outgoing::Response, 0, CID);
    connection
}

fn shut(flags: u32) -> Header {
    Header {
        flags,
        ..header(1000, 0)
    }
}

fn data(length: u32) -> Header {
    Header {
        length,
        ..header(1000, 0)
    }
}

#[test]
fn a_client_is_connected_by_request_and_response() {
    let mut connection = Connection::to_guest(PORTS);
    assert_eq!(connection.next(true), Some(Outgoing::Request));
    let request = connection.send(Outgoing::Request, 0, CID);
    assert_eq!(
        request,
        Header {
            source_cid: 2,
            destination_cid: CID,
            source_port: 7,
            destination_port: 9,
            length: 0,
            socket_type: 1,
            operation: 1,
            flags: 0,
            buffer_bytes: BUFFER_BYTES,
            forwarded_bytes: 0,
        }
    );
    assert_eq!(connection.next(true), None);
    let answer = connection.receive(Operation::Response, &header(500, 0));
    assert_eq!(answer, Received::Established);
    assert_eq!(connection.next(false), None);
    assert_eq!(connection.next(true), Some(Outgoing::Data(500)));
}

#[test]
fn a_client_whom_the_guest_does_not_want_hears_so() {
    let mut connection = Connection::to_guest(PORTS);
    connection.send(Outgoing::Request, 0, CID);
    let answer = connection.receive(Operation::Reset, &header(0, 0));
    assert_eq!(answer, Received::Refused);
    assert!(connection.is_gone());
    assert_eq!(connection.next(true), None);
}

#[test]
fn a_client_that_gives_up_before_the_request_is_not_told_of() {
    let mut connection = Connection::to_guest(PORTS);
    connection.abort();
    assert!(connection.is_gone());
}

#[test]
fn what_breaks_the_order_ends_in_a_reset() {
    let broken: [(&[(Operation, u32)], &str); 6] = [
        (&[(Operation::Request, 0)], "a second request"),
        (&[(Operation::Response, 0)], "an answer without a question"),
        (&[(Operation::Data, BUFFER_BYTES + 1)], "beyond the credit"),
        (
            &[(Operation::Data, BUFFER_BYTES), (Operation::Data, 1)],
            "beyond what is left of it",
        ),
        (&[(Operation::Data, u32::MAX)], "far beyond it"),
        (
            &[(Operation::Shutdown, 0), (Operation::Data, 1)],
            "data after the end",
        ),
    ];
    for (packets, what) in broken {
        let mut connection = open(1000);
        for &(operation, length) in packets {
            let flags = shutdown::SEND;
            let header = Header {
                flags,
                ..data(length)
            };
            connection.receive(operation, &header);
        }
        assert_eq!(connection.next(true), Some(Outgoing::Reset), "{what}");
        // And nothing after it counts.
        let ignored = connection.receive(Operation::Data, &data(1));
        assert_eq!(ignored, Received::Nothing);
        connection.send(Outgoing::Reset, 0, CID);
        assert!(connection.is_gone());
    }
    for operation in [Operation::Data, Operation::Shutdown, Operation::Request] {
        let mut asked = Connection::to_guest(PORTS);
        asked.send(Outgoing::Request, 0, CID);
        asked.receive(operation, &header(0, 0));
        assert_eq!(asked.next(true), Some(Outgoing::Reset));
    }
}

#[test]
fn halves_end_one_by_one() {
    let mut connection = open(1000);
    // The guest sends no more, and still receives.
    connection.receive(Operation::Shutdown, &shut(shutdown::SEND));
    assert!(connection.guest_sends_no_more() && !connection.guest_receives_no_more());
    assert_eq!(connection.next(true), Some(Outgoing::Data(1000)));
    // The host's end, which is told once.
    connection.end_host_sending();
    let end = Outgoing::Shutdown(shutdown::SEND);
    assert_eq!(connection.next(true), Some(end));
    assert_eq!(connection.send(end, 0, CID).flags, shutdown::SEND);
    assert_eq!(connection.next(true), None);
    assert!(!connection.waits_for_guest());
    // Flags that are said hold; with both, the guest is done and hears that the host is as well.
    connection.receive(Operation::Shutdown, &shut(shutdown::RECEIVE));
    assert_eq!(connection.next(true), Some(Outgoing::Reset));
}

#[test]
fn the_last_reset_waits_for_what_the_host_has_not_read() {
    let mut connection = open(1000);
    assert_eq!(
        connection.receive(Operation::Data, &data(100)),
        Received::Data
    );
    connection.receive(Operation::Shutdown, &shut(shutdown::BOTH));
    connection.note_forwarded(60);
    assert_eq!(connection.next(true), None);
    connection.note_forwarded(40);
    assert_eq!(connection.next(true), Some(Outgoing::Reset));
}

#[test]
fn a_host_that_is_gone_ends_both_halves_and_waits_for_the_guest() {
    let mut connection = open(1000);
    connection.receive(Operation::Data, &data(100));
    connection.end_host_receiving();
    connection.end_host_sending();
    let end = Outgoing::Shutdown(shutdown::BOTH);
    assert_eq!(connection.next(true), Some(end));
    connection.send(end, 0, CID);
    for _ in 0..END_TICKS {
        assert!(connection.waits_for_guest());
        connection.tick();
        assert_eq!(connection.next(false), None);
    }
    // A guest that takes what it was sent is given its time again.
    connection.receive(Operation::CreditUpdate, &header(1000, 1));
    connection.tick();
    assert_eq!(connection.next(false), None);
    for _ in 0..END_TICKS {
        connection.tick();
    }
    assert_eq!(connection.next(false), Some(Outgoing::Reset));
}

#[test]
fn a_guest_that_does_not_answer_has_its_time() {
    let mut connection = Connection::to_guest(PORTS);
    for _ in 0..200 {
        // The request waits for a buffer.
        connection.tick();
    }
    connection.send(Outgoing::Request, 0, CID);
    for _ in 0..ANSWER_TICKS {
        connection.tick();
        assert_eq!(connection.next(false), None);
    }
    connection.tick();
    assert_eq!(connection.next(false), Some(Outgoing::Reset));
}

#[test]
fn credit_is_asked_for_once_and_given_when_it_is_wanted() {
    let mut connection = open(10);
    connection.send(Outgoing::Data(10), 10, CID);
    assert_eq!(connection.next(true), Some(Outgoing::CreditRequest));
    connection.send(Outgoing::CreditRequest, 0, CID);
    assert_eq!(connection.next(true), None);
    // An answer without credit is no reason to ask again.
    connection.receive(Operation::CreditUpdate, &header(10, 0));
    assert_eq!(connection.next(true), None);
    connection.receive(Operation::CreditUpdate, &header(10, 4));
    assert_eq!(connection.next(true), Some(Outgoing::Data(4)));

    connection.receive(Operation::CreditRequest, &header(10, 4));
    assert_eq!(connection.next(true), Some(Outgoing::CreditUpdate));
    let update = connection.send(Outgoing::CreditUpdate, 0, CID);
    assert_eq!(update.buffer_bytes, BUFFER_BYTES);
    assert_eq!(connection.next(false), None);
}

/// Anything that a guest and a host can do, in any order.
#[derive(Debug, Clone)]
enum Step {
    Packet(u16, Header),
    Forward(u32),
    HostSendsNoMore,
    HostReceivesNoMore,
    Tick,
    Send(bool),
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, 0..=2 * BUFFER_BYTES, any::<u32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let packet = (0..9_u16, number(), 0..5_u32, number(), number());
    prop_oneof![
        4 => packet.prop_map(|(operation, length, flags, buffer_bytes, forwarded_bytes)| {
            let header = Header { length, flags, buffer_bytes, forwarded_bytes, ..Header::default() };
            Step::Packet(operation, header)
        }),
        2 => number().prop_map(Step::Forward),
        1 => Just(Step::HostSendsNoMore),
        1 => Just(Step::HostReceivesNoMore),
        1 => Just(Step::Tick),
        4 => any::<bool>().prop_map(Step::Send),
    ]
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_a_rule(
        from_guest: bool,
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut connection = match from_guest {
            true => Connection::from_guest(PORTS, &header(1000, 0)),
            false => Connection::to_guest(PORTS),
        };
        let (mut told, mut sent, mut buffered) = (0, 0_u32, 0_u32);
        let (mut room, mut forwarded) = (1000 * u32::from(from_guest), 0);
        for step in steps {
            let was_gone = connection.is_gone();
            match step {
                Step::Packet(operation, header) => {
                    let Some(operation) = Operation::from_number(operation) else { continue };
                    let received = connection.receive(operation, &header);
                    if !was_gone {
                        (room, forwarded) = (header.buffer_bytes, header.forwarded_bytes);
                    }
                    if received == Received::Data {
                        buffered += header.length;
                    }
                }
                Step::Forward(bytes) => {
                    let bytes = bytes.min(buffered);
                    buffered -= bytes;
                    connection.note_forwarded(bytes);
                }
                Step::HostSendsNoMore => connection.end_host_sending(),
                Step::HostReceivesNoMore => {
                    buffered = 0;
                    connection.end_host_receiving();
                }
                Step::Tick => connection.tick(),
                Step::Send(has_data) => {
                    let Some(outgoing) = connection.next(has_data) else { continue };
                    let mut length = 0;
                    match outgoing {
                        Outgoing::Data(most) => {
                            prop_assert!(has_data && most > 0);
                            prop_assert!(!connection.guest_receives_no_more());
                            prop_assert_eq!(told & shutdown::SEND, 0);
                            length = most;
                            sent = sent.wrapping_add(most);
                            prop_assert!(sent.wrapping_sub(forwarded) <= room);
                        }
                        Outgoing::Shutdown(flags) => {
                            prop_assert!(flags & !told != 0 && flags & told == told);
                            told = flags;
                        }
                        _ => {}
                    }
                    let packet = connection.send(outgoing, length, CID);
                    prop_assert_eq!(packet.length, length);
                    prop_assert_eq!(packet.buffer_bytes, BUFFER_BYTES);
                }
            }
            prop_assert!(buffered <= BUFFER_BYTES);
            prop_assert!(!was_gone || connection.is_gone());
            if connection.is_gone() {
                prop_assert_eq!(connection.next(true), None);
                prop_assert!(!connection.waits_for_guest());
            }
        }
    }
}

mod conversation;
