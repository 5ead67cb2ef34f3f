//! Translations that were found before: what a processor's TLB is for (Intel SDM volume 3, 5.10).
//!
//! They live as long as one run of instructions. Nothing in a run forgets translations (INVLPG, loads of
//! control registers end it), so that they hold as long; a page that is not present is never kept.

use std::cell::Cell;

use crate::cpu::bits;
use crate::exception::{Step, Stop};
use crate::memory::{GuestMemory, RamPage};
use crate::paging::{Access, PAGE_BYTES, Paging};
use crate::word::{index, length};

/// How many are kept for each kind of access; a power of two.
const KEPT: usize = 64;

/// Linear pages and where they are in RAM, for accesses at privilege level 0.
pub struct Translations<'a> {
    memory: &'a dyn GuestMemory,
    kept: [[Cell<Option<Kept<'a>>>; KEPT]; 3],
}

/// One of them.
#[derive(Clone, Copy)]
struct Kept<'a> {
    /// The page, with [`KEY_AC`] for what was found with RFLAGS.AC.
    key: u64,
    page: RamPage<'a>,
}

/// Set with RFLAGS.AC, which lets a supervisor reach the pages of programs.
const KEY_AC: u64 = 1;

impl<'a> Translations<'a> {
    /// None yet, in `memory`.
    pub fn new(memory: &'a dyn GuestMemory) -> Self {
        Self {
            memory,
            kept: [const { [const { Cell::new(None) }; KEPT] }; 3],
        }
    }

    /// The page that has all of the `bytes` at `linear`.
    ///
    /// # Errors
    ///
    /// The page fault, or [`Stop::Unknown`] for what is not in one page of RAM.
    pub fn page(
        &self,
        paging: &Paging,
        linear: u64,
        bytes: usize,
        access: Access,
    ) -> Step<RamPage<'a>> {
        let offset = linear & PAGE_BYTES.wrapping_sub(1);
        if offset.saturating_add(length(bytes)) > PAGE_BYTES {
            return Err(Stop::Unknown);
        }
        let start = linear.wrapping_sub(offset);
        let key = start
            | match paging.rflags & bits::AC {
                0 => 0,
                _ => KEY_AC,
            };
        let [reads, writes, fetches] = &self.kept;
        let kind = match access {
            Access::Read => reads,
            Access::Write => writes,
            Access::Fetch => fetches,
        };
        let Some(place) = kind.get(index(start / PAGE_BYTES) % KEPT) else {
            return Err(Stop::Unknown);
        };
        if let Some(kept) = place.get()
            && kept.key == key
        {
            return Ok(kept.page);
        }
        let dirty = access == Access::Write;
        let physical = paging.translate(self.memory, start, access, dirty)?;
        let page = RamPage::new(self.memory, physical).ok_or(Stop::Unknown)?;
        place.set(Some(Kept { key, page }));
        Ok(page)
    }
}
