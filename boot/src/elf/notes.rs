//! Notes, and among them `XEN_ELFNOTE_PHYS32_ENTRY`, the 32-bit entry of PVH (gABI chapter 5, "Note
//! Section"; Xen public/elfnote.h).

use std::ops::Range;

use super::ElfError;

const XEN_OWNER: &[u8] = b"Xen\0";
const XEN_PHYS32_ENTRY: u32 = 18;
/// Sizes of name and description, and the type.
const NOTE_HEADER_BYTES: usize = 12;

/// A segment of notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoteSegment {
    /// Where it is in the image. At most 64 KiB.
    pub file: Range<u64>,
    /// Names and descriptions are padded to this.
    alignment: usize,
}

impl NoteSegment {
    pub fn new(file: Range<u64>, alignment: u64) -> Self {
        Self {
            file,
            alignment: if alignment == 8 { 8 } else { 4 },
        }
    }
}

/// The PVH entry, when `bytes`, the contents of `segment`, have its note. Notes that end beyond the segment
/// end the search: they can be anybody's.
pub(crate) fn pvh_entry(segment: &NoteSegment, bytes: &[u8]) -> Result<Option<u32>, ElfError> {
    let mut offset = 0usize;
    while let Some(note) = bytes.get(offset..)
        && let Some((header, after)) = note.split_at_checked(NOTE_HEADER_BYTES)
    {
        let mut words = header
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        let (Some(name_bytes), Some(description_bytes), Some(kind)) =
            (words.next(), words.next(), words.next())
        else {
            break;
        };
        let padded = |bytes: u32| {
            usize::try_from(bytes)
                .ok()?
                .checked_next_multiple_of(segment.alignment)
        };
        // With an alignment of 8 the header's 12 bytes count, too.
        let description_start = padded(name_bytes.saturating_add(12));
        let Some(description_start) = description_start else {
            break;
        };
        if kind == XEN_PHYS32_ENTRY && after.starts_with(XEN_OWNER) && name_bytes == 4 {
            let description = note.get(description_start..).unwrap_or_default();
            return entry(description_bytes, description)
                .map(Some)
                .ok_or_else(|| ElfError::PvhNote {
                    offset: segment
                        .file
                        .start
                        .saturating_add(u64::try_from(offset).unwrap_or(u64::MAX)),
                    length: description_bytes,
                });
        }
        let next = padded(description_bytes)
            .and_then(|length| length.checked_add(description_start))
            .and_then(|length| length.checked_add(offset));
        let Some(next) = next else { break };
        offset = next;
    }
    Ok(None)
}

/// The address in a description: 4 bytes, or 8 of which the upper ones are zero.
fn entry(length: u32, description: &[u8]) -> Option<u32> {
    match length {
        4 => description
            .first_chunk()
            .map(|bytes| u32::from_le_bytes(*bytes)),
        8 => u32::try_from(u64::from_le_bytes(*description.first_chunk()?)).ok(),
        _ => None,
    }
}
