use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// A sender that knows of the receiver only what its packets say, some of them late.
#[derive(Debug, Clone)]
enum Step {
    Send(u32),
    Forward(u32),
    Tell,
    Hear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..100_000_u32).prop_map(Step::Send),
        (1..100_000_u32).prop_map(Step::Forward),
        Just(Step::Tell),
        Just(Step::Hear),
    ]
}

proptest! {
    #[test]
    fn a_sender_that_keeps_to_its_credit_is_never_refused(
        start: u32,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        // Both have counted for a while; the counts pass 2^32.
        let mut sender = SendCredit { sent: start, buffer_bytes: BUFFER_BYTES, forwarded: start };
        let mut receiver = ReceiveCredit { received: start, forwarded: start, told: start };
        let mut told = VecDeque::new();
        for step in steps {
            match step {
                Step::Send(bytes) => {
                    let bytes = bytes.min(sender.free());
                    sender.note_sent(bytes);
                    prop_assert!(receiver.take(bytes));
                }
                Step::Forward(bytes) => receiver.note_forwarded(bytes),
                Step::Tell => {
                    let mut header = Header::default();
                    receiver.tell(&mut header);
                    told.push_back(header);
                    prop_assert!(!receiver.is_worth_telling());
                }
                Step::Hear => {
                    if let Some(header) = told.pop_front() {
                        sender.update(&header);
                    }
                }
            }
            prop_assert!(receiver.buffered() <= BUFFER_BYTES);
            prop_assert!(sender.free() <= BUFFER_BYTES - receiver.buffered());
        }
        // Nobody waits for ever: what was not worth telling leaves room for the largest packet of Linux.
        receiver.note_forwarded(u32::MAX);
        told.into_iter().for_each(|header| { sender.update(&header); });
        prop_assert!(receiver.is_worth_telling() || sender.free() >= 64 * 1024);
    }

    #[test]
    fn what_a_guest_says_of_its_buffer_gives_no_more_than_that(
        sent: u32, buffer_bytes: u32, forwarded_bytes: u32,
    ) {
        let mut credit = SendCredit { sent, ..SendCredit::default() };
        credit.update(&Header { buffer_bytes, forwarded_bytes, ..Header::default() });
        prop_assert!(credit.free() <= buffer_bytes);
    }

    #[test]
    fn more_than_the_buffer_holds_is_refused(already in 0..=BUFFER_BYTES, bytes: u32) {
        let mut credit = ReceiveCredit::default();
        prop_assert!(credit.take(already));
        prop_assert_eq!(credit.take(bytes), bytes <= BUFFER_BYTES - already);
        credit.note_forwarded(u32::MAX);
        prop_assert_eq!(credit.buffered(), 0);
    }
}
