//! The watchdog tells a lab that fails from a job that fails.

use std::sync::mpsc;
use std::time::Duration;

use super::{Outcome, Sign, parse_sign, watch_with_limits};

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(60);

fn outcome(signs: &[Sign], job: Duration) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    for sign in signs {
        sender.send(*sign).unwrap();
    }
    // The sender lives on: silence is not the end of the connection.
    watch_with_limits(&receiver, SHORT, SHORT, job)
}

#[test]
fn a_job_has_its_own_status() {
    let signs = [Sign::Ready, Sign::Alive, Sign::Exit(101)];
    assert_eq!(outcome(&signs, LONG), Outcome::Status(101));
}

#[test]
fn a_lab_that_does_not_start_or_falls_silent_failed() {
    let reason = |signs: &[Sign]| match outcome(signs, LONG) {
        Outcome::LabFailed(reason) => reason,
        Outcome::Status(status) => panic!("status {status}"),
    };
    assert!(reason(&[]).contains("not at its init"));
    assert!(reason(&[Sign::Ready, Sign::Alive]).contains("silent"));
    assert!(reason(&[Sign::Ready, Sign::Closed]).contains("without a status"));
}

#[test]
fn a_job_that_takes_too_long_fails() {
    let signs = [Sign::Ready, Sign::Alive];
    assert_eq!(outcome(&signs, Duration::ZERO), Outcome::Status(124));
}

#[test]
fn lines_of_the_control_port() {
    assert_eq!(parse_sign("ready\r"), Some(Sign::Ready));
    assert_eq!(parse_sign("alive"), Some(Sign::Alive));
    assert_eq!(parse_sign("exit 3"), Some(Sign::Exit(3)));
    assert_eq!(parse_sign("exit"), None);
    assert_eq!(parse_sign("exited"), None);
}
