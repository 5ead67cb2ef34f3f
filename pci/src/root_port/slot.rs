//! A hot-plug slot: what is in it, what has happened to it, and what its guest says of it (PCI Express
//! Base Specification 5.0, 6.7 and 7.5.3.9 to 7.5.3.11).
//!
//! The slot has an attention button, which the machine's owner presses to have the device back, and two
//! indicators. It has no power controller: there is power whenever there is a device, so that its link is
//! up at once and a guest need not wait. By the power indicator the guest says whether the device may be
//! taken away (table 6-9: off means that removal is permitted). Commands are carried out before the write
//! returns, and completion is never announced (7.5.3.9, No Command Completed Support).

/// Slot capabilities (7.5.3.9): attention button, both indicators, hot-plug capable, no command completed
/// support; the slot's number is above them.
pub(super) const CAPABILITIES: u32 = 1 << 0 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 18;
/// Where the slot's number is in them.
pub(super) const NUMBER_SHIFT: u32 = 19;
/// The largest number of a slot.
pub(super) const NUMBER_MAX: u16 = 0x1fff;

/// Bits of slot control (7.5.3.10).
pub(super) mod control {
    /// Attention button pressed, power fault, retention latch, presence changed: each may interrupt. The
    /// second and third do not happen.
    pub const EVENTS: u16 = 0xf;
    /// The attention button may interrupt.
    pub const ATTENTION_BUTTON: u16 = 1 << 0;
    /// A change of presence may interrupt.
    pub const PRESENCE: u16 = 1 << 3;
    /// What may interrupt, does.
    pub const INTERRUPT: u16 = 1 << 5;
    /// What the attention indicator does: off.
    pub const ATTENTION_INDICATOR_OFF: u16 = 3 << 6;
    /// What the power indicator does.
    pub const POWER_INDICATOR: u16 = 3 << 8;
    /// There is power: the device must not be taken away.
    pub const POWER_INDICATOR_ON: u16 = 1 << 8;
    /// The guest is about to change that.
    pub const POWER_INDICATOR_BLINKS: u16 = 2 << 8;
    /// The device may be taken away.
    pub const POWER_INDICATOR_OFF: u16 = 3 << 8;
    /// A change of the link's state may interrupt.
    pub const LINK: u16 = 1 << 12;
    /// What a guest can write.
    pub const WRITABLE: u16 = EVENTS | INTERRUPT | ATTENTION_INDICATOR_OFF | POWER_INDICATOR | LINK;
}

/// Bits of slot status (7.5.3.11).
pub(super) mod status {
    /// The attention button was pressed. Written as 1 it is cleared, and so are the two changes.
    pub const ATTENTION_BUTTON: u16 = 1 << 0;
    /// Presence has changed.
    pub const PRESENCE_CHANGED: u16 = 1 << 3;
    /// There is a device.
    pub const PRESENT: u16 = 1 << 6;
    /// The link's state has changed.
    pub const LINK_CHANGED: u16 = 1 << 8;
}

/// Link status (7.5.3.8): 2.5 GT/s on one lane, common clock.
const LINK_STATUS: u16 = 1 | 1 << 4 | 1 << 12;
/// In link status: the data link layer is active.
const LINK_ACTIVE: u16 = 1 << 13;

/// The state of a slot beside slot control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Slot {
    present: bool,
    /// Bits of slot status that the guest has not cleared.
    events: u16,
    /// The owner wants the device back.
    requested: bool,
    /// The guest has said of the device that is there that it may be taken away.
    permitted: bool,
}

impl Slot {
    /// A slot with a device from the start, of which the guest hears when it looks.
    pub(super) fn insert_at_start(&mut self) {
        *self = Self {
            present: true,
            ..Self::default()
        };
    }

    /// A device comes, or goes.
    pub(super) fn set_present(&mut self, present: bool) {
        if self.present != present {
            self.events |= status::PRESENCE_CHANGED | status::LINK_CHANGED;
        }
        self.present = present;
        self.requested = false;
        self.permitted = false;
    }

    /// The owner wants the device back: whether it may be taken away at once. If not, the button is
    /// pressed.
    pub(super) fn request_removal(&mut self) -> bool {
        if !self.permitted && self.present {
            self.requested = true;
            self.events |= status::ATTENTION_BUTTON;
        }
        self.removal_is_permitted()
    }

    /// Whether the device may be taken away.
    pub(super) const fn removal_is_permitted(&self) -> bool {
        self.permitted || !self.present
    }

    /// The owner does not want it any more. A guest that has begun, as the blinking of its indicator
    /// says, is told by the button (6.7.1.5).
    pub(super) fn withdraw_request(&mut self, control: u16) {
        let began = control & control::POWER_INDICATOR == control::POWER_INDICATOR_BLINKS;
        if std::mem::take(&mut self.requested) && began {
            self.events |= status::ATTENTION_BUTTON;
        }
    }

    /// Takes a new value of slot control: whether the owner, who has asked for it, may now take the device
    /// away.
    pub(super) fn control_written(&mut self, control: u16) -> bool {
        let off = control & control::POWER_INDICATOR == control::POWER_INDICATOR_OFF;
        self.permitted = self.present && off;
        self.permitted && std::mem::take(&mut self.requested)
    }

    /// Takes a write to slot status.
    pub(super) fn status_written(&mut self, value: u16) {
        self.events &= !value;
    }

    /// Slot status.
    pub(super) fn status(self) -> u16 {
        match self.present {
            true => self.events | status::PRESENT,
            false => self.events,
        }
    }

    /// Link status.
    pub(super) fn link_status(self) -> u16 {
        match self.present {
            true => LINK_STATUS | LINK_ACTIVE,
            false => 0,
        }
    }

    /// Whether an event that may interrupt has not been cleared (6.7.3.4).
    pub(super) fn wants_interrupt(self, control: u16) -> bool {
        let wanted = [
            (control::ATTENTION_BUTTON, status::ATTENTION_BUTTON),
            (control::PRESENCE, status::PRESENCE_CHANGED),
            (control::LINK, status::LINK_CHANGED),
        ];
        control & control::INTERRUPT != 0
            && wanted
                .into_iter()
                .any(|(enable, event)| control & enable != 0 && self.events & event != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u16 = control::EVENTS | control::INTERRUPT | control::LINK;

    #[test]
    fn a_device_is_taken_away_when_the_guest_permits_it() {
        let mut slot = Slot::default();
        assert!(!slot.control_written(ALL | control::POWER_INDICATOR_OFF));
        slot.set_present(true);
        assert_eq!(slot.status(), 0x148);
        assert_eq!(slot.link_status() & LINK_ACTIVE, LINK_ACTIVE);
        slot.status_written(0xffff);
        assert!(!slot.request_removal(), "the guest has not looked at it");
        assert_eq!(slot.status(), 0x41);
        for control in [
            control::POWER_INDICATOR_BLINKS,
            control::POWER_INDICATOR_ON,
            control::POWER_INDICATOR_BLINKS,
        ] {
            assert!(!slot.control_written(ALL | control));
        }
        let off = ALL | control::POWER_INDICATOR_OFF;
        assert!(slot.control_written(off));
        assert!(!slot.control_written(off), "once for each request");
        slot.set_present(false);
        assert_eq!((slot.status(), slot.link_status()), (0x109, 0));
        assert!(slot.request_removal(), "there is nothing");
    }

    #[test]
    fn a_permission_is_good_until_it_is_taken_back() {
        let mut slot = Slot::default();
        slot.insert_at_start();
        assert_eq!(slot.status(), 0x40);
        assert!(!slot.control_written(control::POWER_INDICATOR_OFF));
        assert!(slot.request_removal(), "the guest ejected it by itself");
        assert!(!slot.control_written(control::POWER_INDICATOR_ON));
        assert!(!slot.request_removal());
        slot.withdraw_request(control::POWER_INDICATOR_ON);
        assert!(!slot.control_written(control::POWER_INDICATOR_OFF));
        // The next device has its own permission.
        slot.set_present(false);
        slot.set_present(true);
        assert!(!slot.request_removal());
    }

    #[test]
    fn a_request_is_withdrawn_from_a_guest_that_has_begun() {
        let mut slot = Slot::default();
        slot.insert_at_start();
        slot.withdraw_request(control::POWER_INDICATOR_BLINKS);
        assert_eq!(slot.status(), 0x40, "nothing was asked");
        assert!(!slot.request_removal());
        slot.status_written(1);
        slot.withdraw_request(control::POWER_INDICATOR_ON);
        assert_eq!(slot.status(), 0x40);
        assert!(!slot.request_removal());
        slot.status_written(1);
        slot.withdraw_request(control::POWER_INDICATOR_BLINKS);
        assert_eq!(slot.status(), 0x41);
    }

    #[test]
    fn each_event_interrupts_where_it_may() {
        let mut slot = Slot::default();
        slot.set_present(true);
        assert!(slot.wants_interrupt(ALL));
        assert!(!slot.wants_interrupt(ALL & !control::INTERRUPT));
        assert!(slot.wants_interrupt(control::INTERRUPT | control::LINK));
        assert!(slot.wants_interrupt(control::INTERRUPT | control::PRESENCE));
        assert!(!slot.wants_interrupt(control::INTERRUPT | control::ATTENTION_BUTTON));
        slot.status_written(status::LINK_CHANGED);
        assert!(!slot.wants_interrupt(control::INTERRUPT | control::LINK));
        slot.status_written(status::PRESENCE_CHANGED);
        assert!(!slot.wants_interrupt(ALL));
        assert!(!slot.request_removal());
        assert!(slot.wants_interrupt(control::INTERRUPT | control::ATTENTION_BUTTON));
    }
}
