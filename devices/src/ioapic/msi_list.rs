//! A list of messages with room for one from each pin of an I/O APIC, so that it needs no heap.

use arch::layout::gsi;
use bus::Msi;

/// Up to [`gsi::PINS`] messages, in the order in which they are to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MsiList {
    messages: [Option<Msi>; gsi::PINS as usize],
}

impl MsiList {
    /// The messages, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Msi> + '_ {
        self.messages.iter().map_while(|message| *message)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl IntoIterator for MsiList {
    type Item = Msi;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Msi>, { gsi::PINS as usize }>>;

    fn into_iter(self) -> Self::IntoIter {
        self.messages.into_iter().flatten()
    }
}

impl Extend<Msi> for MsiList {
    /// Appends. Each pin sends at most one message at a time, so there is room for all.
    fn extend<I: IntoIterator<Item = Msi>>(&mut self, messages: I) {
        let mut free = self.messages.iter_mut().filter(|slot| slot.is_none());
        for message in messages {
            if let Some(slot) = free.next() {
                *slot = Some(message);
            }
        }
    }
}
