use super::*;

#[test]
fn the_64_bit_entry_is_in_long_mode() {
    let state = EntryState::linux_64_bit(0x100_0200);
    assert_eq!(state.general.rip, 0x100_0200);
    assert_eq!(state.general.rsi, 0x7000);
    assert_eq!(state.general.rflags, 2);
    assert_eq!(state.system.cr0, 0x8000_0011);
    assert_eq!(state.system.cr3, 0x9000);
    assert_eq!(state.system.cr4, 0x20);
    assert_eq!(state.system.efer, 0x500);
    assert_eq!(state.system.cs.selector, 0x10);
    assert!(state.system.cs.long && !state.system.cs.default_32_bit);
    for segment in [state.system.ds, state.system.es, state.system.ss] {
        assert_eq!(segment.selector, 0x18);
    }
}

#[test]
fn the_pvh_entry_is_in_protected_mode_without_paging() {
    let state = EntryState::pvh(0x100_0440);
    assert_eq!(state.general.rip, 0x100_0440);
    assert_eq!(state.general.rbx, 0x6000);
    assert_eq!(state.general.rflags, 2);
    assert_eq!(state.system.cr0, 0x11);
    assert_eq!(
        (state.system.cr3, state.system.cr4, state.system.efer),
        (0, 0, 0)
    );
    assert!(!state.system.cs.long && state.system.cs.default_32_bit);
    assert_eq!((state.system.tr.base, state.system.tr.limit), (0, 0x67));
    assert_eq!(state.system.cs.limit, u32::MAX);
}

/// Nothing that the boot loader leaves behind lies on another such thing or above conventional memory.
#[test]
fn places_in_conventional_memory_do_not_overlap() {
    let gdt_end = segments::GDT_REGISTER.base + u64::from(segments::GDT_REGISTER.limit) + 1;
    let places = [
        layout::GDT..gdt_end,
        layout::PVH_START_INFO,
        layout::ZERO_PAGE,
        layout::PAGE_TABLES,
        layout::COMMAND_LINE,
        layout::CONVENTIONAL_END..layout::CONVENTIONAL_END,
    ];
    for pair in places.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
    }
}
