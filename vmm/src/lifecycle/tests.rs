use proptest::prelude::*;

use super::*;

fn policy(action: Action) -> Policy {
    Policy {
        on_poweroff: action,
        on_reboot: action,
        on_crash: action,
    }
}

fn crash() -> GuestEnd {
    GuestEnd::Crash(Crash::new("panic"))
}

#[test]
fn a_machine_starts_pauses_and_resumes() {
    let (state, command) = State::Created.next(Event::Start, Policy::default());
    assert_eq!((&state, command), (&State::Running, Command::Run));
    let (state, command) = state.next(Event::Pause, Policy::default());
    assert_eq!((&state, command), (&State::Paused, Command::Pause));
    let (state, command) = state.next(Event::Resume, Policy::default());
    assert_eq!((&state, command), (&State::Running, Command::Run));
}

#[test]
fn each_end_has_each_action() {
    for (end, outcome) in [
        (GuestEnd::PowerOff, Outcome::PowerOff),
        (GuestEnd::Reset, Outcome::Reset),
        (crash(), Outcome::Crash(Crash::new("panic"))),
    ] {
        let after = |action| State::Running.next(Event::Guest(end.clone()), policy(action));
        assert_eq!(
            after(Action::Destroy),
            (State::Stopped(outcome.clone()), Command::Destroy)
        );
        assert_eq!(after(Action::Restart), (State::Running, Command::Rebuild));
        assert_eq!(
            after(Action::Preserve),
            (State::Preserved(outcome.clone()), Command::Pause)
        );
    }
}

#[test]
fn a_preserved_machine_ends_with_what_it_was_preserved_for() {
    let preserved = State::Preserved(Outcome::Crash(Crash::new("panic")));
    assert_eq!(
        preserved.next(Event::Stop(StopReason::Signal(15)), Policy::default()),
        (
            State::Stopped(Outcome::Crash(Crash::new("panic"))),
            Command::Destroy
        )
    );
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::Pause),
        Just(Event::Resume),
        Just(Event::Reset),
        Just(Event::Guest(GuestEnd::PowerOff)),
        Just(Event::Guest(GuestEnd::Reset)),
        Just(Event::Guest(crash())),
        Just(Event::Stop(StopReason::User)),
    ]
}

proptest! {
    /// Whatever happens: vCPUs are told to run only when they stand still, a stopped machine stays
    /// stopped and is taken apart once, and a stop always works.
    #[test]
    fn commands_fit_the_machine(
        events in prop::collection::vec(event(), 0..30),
        action in prop_oneof![Just(Action::Destroy), Just(Action::Restart), Just(Action::Preserve)],
    ) {
        let mut state = State::Created;
        let (mut vcpus_run, mut destroyed) = (false, 0);
        for event in events {
            let (next, command) = state.next(event, policy(action));
            match command {
                Command::Run => {
                    prop_assert!(!vcpus_run);
                    vcpus_run = true;
                }
                Command::Pause => {
                    vcpus_run = false;
                }
                Command::Rebuild => vcpus_run = true,
                Command::Destroy => {
                    vcpus_run = false;
                    destroyed += 1;
                }
                Command::Nothing => {}
            }
            prop_assert_eq!(vcpus_run, next == State::Running);
            prop_assert_eq!(destroyed, usize::from(matches!(next, State::Stopped(_))));
            state = next;
        }
        let (state, _) = state.next(Event::Stop(StopReason::User), policy(action));
        prop_assert!(matches!(state, State::Stopped(_)));
    }
}
