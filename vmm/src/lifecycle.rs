//! What becomes of a machine: a pure function of its state and an event.
//!
//! ```text
//!             Start           Pause
//!   Created ────────► Running ──────► Paused
//!                      │   ▲ ◄──────────┘  Resume
//!     guest's end,     │   │
//!     host's reset     ▼   │ action restart: the machine is rebuilt
//!                   (policy)
//!       preserve │         │ destroy
//!                ▼         ▼
//!            Preserved ─► Stopped          Stop leads to Stopped from everywhere
//! ```
//!
//! The driver in [`session`](crate::session) feeds events and carries out commands; nothing else changes
//! a machine's state.

use std::fmt::{self, Display};

use crate::config::Action;
use crate::crash::Crash;

/// Why a guest's run ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestEnd {
    /// It turned its power off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// It crashed.
    Crash(Crash),
}

/// Why the host ended a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The person at the console, or the program that embeds the machine, asked for it.
    User,
    /// The process received this signal.
    Signal(i32),
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The guest turned its power off.
    PowerOff,
    /// The guest reset, and a reset is the end.
    Reset,
    /// The guest crashed.
    Crash(Crash),
    /// The host ended it.
    Stopped(StopReason),
}

impl Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => formatter.write_str("the guest turned its power off"),
            Self::Reset => formatter.write_str("the guest reset"),
            Self::Crash(crash) => write!(formatter, "the guest crashed: {crash}"),
            Self::Stopped(StopReason::User) => formatter.write_str("stopped by the user"),
            Self::Stopped(StopReason::Signal(signal)) => {
                write!(formatter, "stopped by signal {signal}")
            }
        }
    }
}

/// The state of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Built, no instruction run.
    Created,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs stand between two instructions.
    Paused,
    /// Its guest has ended and the machine is kept as it was.
    Preserved(Outcome),
    /// It is gone.
    Stopped(Outcome),
}

/// What happens to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first run.
    Start,
    /// The host wants the vCPUs to stand still.
    Pause,
    /// The host wants them to go on.
    Resume,
    /// The host resets the machine.
    Reset,
    /// The guest's run ended.
    Guest(GuestEnd),
    /// The host ends the machine.
    Stop(StopReason),
}

/// What the driver has to do to reach the new state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    Nothing,
    /// Let the vCPUs run.
    Run,
    /// Bring the vCPUs to an instruction boundary.
    Pause,
    /// Take the machine apart, build it again from its configuration, let it run.
    Rebuild,
    /// Take the machine apart.
    Destroy,
}

/// What follows the end of a guest, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// After the guest turned its power off.
    pub on_poweroff: Action,
    /// After it reset.
    pub on_reboot: Action,
    /// After it crashed.
    pub on_crash: Action,
}

impl State {
    /// The state after `event`, and what has to be done to get there.
    pub fn next(self, event: Event, policy: Policy) -> (Self, Command) {
        match (self, event) {
            (stopped @ Self::Stopped(_), _) => (stopped, Command::Nothing),
            // A guest that has already ended keeps its own outcome: that is what a user who preserved it
            // wants to hear.
            (Self::Preserved(outcome), Event::Stop(_)) => {
                (Self::Stopped(outcome), Command::Destroy)
            }
            (_, Event::Stop(reason)) => (Self::Stopped(Outcome::Stopped(reason)), Command::Destroy),
            (Self::Created, Event::Start) => (Self::Running, Command::Run),
            (Self::Paused, Event::Resume) => (Self::Running, Command::Run),
            (Self::Running, Event::Pause) => (Self::Paused, Command::Pause),
            (Self::Running | Self::Paused | Self::Preserved(_), Event::Reset) => {
                (Self::Running, Command::Rebuild)
            }
            // A vCPU can still report the guest's end when a pause overtook it.
            (Self::Running | Self::Paused, Event::Guest(end)) => end_of_guest(end, policy),
            (state, _) => (state, Command::Nothing),
        }
    }
}

fn end_of_guest(end: GuestEnd, policy: Policy) -> (State, Command) {
    let (action, outcome) = match end {
        GuestEnd::PowerOff => (policy.on_poweroff, Outcome::PowerOff),
        GuestEnd::Reset => (policy.on_reboot, Outcome::Reset),
        GuestEnd::Crash(crash) => (policy.on_crash, Outcome::Crash(crash)),
    };
    match action {
        Action::Destroy => (State::Stopped(outcome), Command::Destroy),
        Action::Restart => (State::Running, Command::Rebuild),
        Action::Preserve => (State::Preserved(outcome), Command::Pause),
    }
}

#[cfg(test)]
mod tests;
