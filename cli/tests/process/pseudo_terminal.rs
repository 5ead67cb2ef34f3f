//! A terminal to start `cuddy` in.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::command::{cuddy, until};

/// A child, and the person in front of its terminal.
pub struct Session {
    pub child: Child,
    person: File,
    terminal: OwnedFd,
    before: Termios,
}

impl Session {
    /// Starts `cuddy` with the terminal as its input, output and errors.
    pub fn start(arguments: &[&str]) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let terminal = ioctl_tiocgptpeer(&person, flags).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let stream = || Stdio::from(terminal.try_clone().unwrap());
        let child = cuddy(arguments)
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        Self {
            child,
            person: person.into(),
            terminal,
            before,
        }
    }

    pub fn type_keys(&mut self, keys: &[u8]) {
        self.person.write_all(keys).unwrap();
    }

    /// Reads what is on the screen until it ends with `text`.
    pub fn see(&mut self, text: &str) {
        let mut screen = Vec::new();
        until(text, || {
            let mut descriptors = [PollFd::new(&self.person, PollFlags::IN)];
            if poll(&mut descriptors, Some(&Timespec::default())).unwrap() > 0 {
                let mut buffer = [0; 256];
                let count = self.person.read(&mut buffer).unwrap();
                screen.extend_from_slice(&buffer[..count]);
            }
            screen.ends_with(text.as_bytes())
        });
    }

    pub fn is_raw(&self) -> bool {
        let mode = tcgetattr(self.terminal.as_fd()).unwrap();
        !mode
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Whether the terminal has the mode in which `cuddy` found it.
    pub fn is_as_before(&self) -> bool {
        let now = tcgetattr(self.terminal.as_fd()).unwrap();
        format!("{now:?}") == format!("{:?}", self.before)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A child that has ended needs no killing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
