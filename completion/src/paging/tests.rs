use proptest::prelude::*;

use super::*;
use crate::fetch::fetch_as_program;
use crate::testing::{Ram, TestCpu};

const ROOT: u64 = 0x1_0000;
const P: u64 = entry::PRESENT;
const W: u64 = entry::WRITABLE;
const U: u64 = entry::USER;
const NX: u64 = entry::NO_EXECUTE;

/// A linear address with a different index at each of five levels.
const LINEAR: u64 = 1 << 48 | 2 << 39 | 3 << 30 | 4 << 21 | 5 << 12 | 0x678;

fn long(levels: u32) -> Paging {
    Paging {
        system: SystemRegisters {
            cr0: bits::CR0_PE | bits::CR0_PG | bits::CR0_WP,
            cr3: ROOT | 0x18,
            cr4: bits::CR4_PAE | if levels == 5 { bits::CR4_LA57 } else { 0 },
            efer: bits::EFER_LMA | bits::EFER_NXE,
            ..SystemRegisters::default()
        },
        rflags: 2,
        user: false,
        pkru: 0,
        pkrs: 0,
        physical_bits: 40,
    }
}

/// Where the entry of `level` for `address` is, when tables are one after the other from the root.
fn place(levels: u32, level: u32, address: u64) -> u64 {
    ROOT + 0x1000 * u64::from(levels - level) + (address >> (9 * (level - 1) + 12) & 0x1ff) * 8
}

/// Builds the path to a page of `level`, with `upper` in the entries above and `leaf` in the last.
fn build(ram: &Ram, levels: u32, address: u64, level: u32, upper: u64, leaf: u64) {
    for above in level + 1..=levels {
        let next = ROOT + 0x1000 * u64::from(levels - above + 1);
        ram.put(place(levels, above, address), &(next | upper).to_le_bytes());
    }
    ram.put(place(levels, level, address), &leaf.to_le_bytes());
}

fn entry_at(ram: &Ram, levels: u32, level: u32) -> u64 {
    crate::testing::word(ram, place(levels, level, LINEAR))
}

#[test]
fn pages_of_every_size_on_four_and_five_levels() {
    for levels in [4, 5] {
        for (level, size) in [(1, 0x1000u64), (2, 0x20_0000), (3, 0x4000_0000)] {
            let ram = Ram::new();
            let base = 0x12_4000_0000u64;
            let large = if level > 1 { entry::LARGE } else { 0 };
            build(&ram, levels, LINEAR, level, P | W | U, base | P | W | large);
            let paging = long(levels);
            let physical = paging.translate(&ram, LINEAR, Access::Write, false);
            assert_eq!(physical, Ok(base | LINEAR & (size - 1)), "{levels} {level}");
            assert_eq!(entry_at(&ram, levels, level) & 0x60, entry::ACCESSED);
            paging
                .translate(&ram, LINEAR, Access::Write, true)
                .expect("a page");
            assert_eq!(
                entry_at(&ram, levels, level) & 0x60,
                entry::ACCESSED | entry::DIRTY
            );
            for above in level + 1..=levels {
                assert_eq!(entry_at(&ram, levels, above) & 0x60, entry::ACCESSED);
            }
        }
    }
}

#[test]
fn what_is_not_present_faults_at_every_level() {
    for missing in 1..=4 {
        let ram = Ram::new();
        build(&ram, 4, LINEAR, 1, P | W | U, 0x5000 | P | W | U);
        ram.put(place(4, missing, LINEAR), &0xffff_fffeu64.to_le_bytes());
        let fault = long(4).translate(&ram, LINEAR, Access::Read, false);
        assert_eq!(fault, Err(Exception::page_fault(LINEAR, 0)));
        // Nothing was marked on a way that leads nowhere.
        assert!((missing + 1..=4).all(|level| entry_at(&ram, 4, level) & entry::ACCESSED == 0));
    }
}

/// One access: rights of the upper entries and of the page, what changes in the processor's state, and the
/// error code, or none where it is allowed.
type Case = (u64, u64, fn(&mut Paging), Access, Option<u32>);

#[test]
fn rights() {
    let none: fn(&mut Paging) = |_| {};
    let user: fn(&mut Paging) = |paging| paging.user = true;
    let all = P | W | U;
    let cases: &[Case] = &[
        (all, P | W, none, Access::Read, None),
        (all, P | W, user, Access::Read, Some(5)),
        (all, P | W, user, Access::Write, Some(7)),
        (P | W, all, user, Access::Read, Some(5)),
        (all, P, none, Access::Write, Some(3)),
        (P | U, all, none, Access::Write, Some(3)),
        (
            all,
            P,
            |paging| paging.system.cr0 &= !bits::CR0_WP,
            Access::Write,
            None,
        ),
        (
            all,
            P | U,
            |paging| {
                paging.system.cr0 &= !bits::CR0_WP;
                paging.user = true;
            },
            Access::Write,
            Some(7),
        ),
        // Execution.
        (all, P | NX, none, Access::Fetch, Some(0x11)),
        (all | NX, P, none, Access::Fetch, Some(0x11)),
        (all, P | NX, none, Access::Read, None),
        (all, P | U, none, Access::Fetch, None),
        (
            all,
            P | U,
            |paging| paging.system.cr4 |= bits::CR4_SMEP,
            Access::Fetch,
            Some(0x11),
        ),
        (
            all,
            P | U,
            |paging| {
                paging.system.cr4 |= bits::CR4_SMEP;
                paging.user = true;
            },
            Access::Fetch,
            None,
        ),
        (P | W, all, user, Access::Fetch, Some(0x15)),
        // Without execute-disable its bit is reserved and its flag of the error code away.
        (
            all,
            P | NX,
            |paging| paging.system.efer &= !bits::EFER_NXE,
            Access::Read,
            Some(9),
        ),
        (
            P | W,
            all,
            |paging| {
                paging.system.efer &= !bits::EFER_NXE;
                paging.user = true;
            },
            Access::Fetch,
            Some(5),
        ),
        // Supervisor-mode access prevention.
        (
            all,
            all,
            |paging| paging.system.cr4 |= bits::CR4_SMAP,
            Access::Read,
            Some(1),
        ),
        (
            all,
            all,
            |paging| paging.system.cr4 |= bits::CR4_SMAP,
            Access::Write,
            Some(3),
        ),
        (
            all,
            all,
            |paging| {
                paging.system.cr4 |= bits::CR4_SMAP;
                paging.rflags |= bits::AC;
            },
            Access::Write,
            None,
        ),
        (
            all,
            P | W,
            |paging| paging.system.cr4 |= bits::CR4_SMAP,
            Access::Write,
            None,
        ),
        // Protection keys: key 3 forbids writes, key 5 all.
        (
            all,
            all | 3 << 59,
            |paging| keys(paging, 1 << 7),
            Access::Read,
            None,
        ),
        (
            all,
            all | 3 << 59,
            |paging| keys(paging, 1 << 7),
            Access::Write,
            Some(0x23),
        ),
        (
            all,
            all | 3 << 59,
            |paging| {
                keys(paging, 1 << 7);
                paging.system.cr0 &= !bits::CR0_WP;
            },
            Access::Write,
            None,
        ),
        (
            all,
            all | 5 << 59,
            |paging| keys(paging, 1 << 10),
            Access::Read,
            Some(0x21),
        ),
        (
            all,
            all | 5 << 59,
            |paging| keys(paging, 1 << 10),
            Access::Fetch,
            None,
        ),
        (
            all,
            P | W | 5 << 59,
            |paging| keys(paging, 1 << 10),
            Access::Read,
            None,
        ),
        // Reserved bits: above the physical address, a large page where there is none.
        (all, all | 1 << 40, none, Access::Read, Some(9)),
        (all | 1 << 51, all, none, Access::Write, Some(0xb)),
    ];
    for (number, (upper, leaf, change, access, code)) in cases.iter().enumerate() {
        let ram = Ram::new();
        build(&ram, 4, LINEAR, 1, *upper, 0x5000 | leaf);
        let mut paging = long(4);
        change(&mut paging);
        let expected = match code {
            None => Ok(0x5678),
            Some(code) => Err(Exception::page_fault(LINEAR, *code)),
        };
        let result = paging.translate(&ram, LINEAR, *access, true);
        assert_eq!(result, expected, "case {number}");
        let dirty = entry_at(&ram, 4, 1) & entry::DIRTY != 0;
        assert_eq!(dirty, code.is_none(), "case {number}: dirty");
    }
}

fn keys(paging: &mut Paging, rights: u32) {
    paging.system.cr4 |= bits::CR4_PKE;
    paging.pkru = rights;
}

#[test]
fn reserved_bits_of_large_pages_and_of_the_root() {
    for (level, bits, reserved) in [
        (2, 1 << 12, false),
        (2, 1 << 13, true),
        (2, 1 << 20, true),
        (3, 1 << 12, false),
        (3, 1 << 29, true),
        (4, 0, true),
    ] {
        let ram = Ram::new();
        build(
            &ram,
            4,
            LINEAR,
            level,
            P | W | U,
            P | W | entry::LARGE | bits,
        );
        let result = long(4).translate(&ram, LINEAR, Access::Read, false);
        assert_eq!(result.is_err(), reserved, "level {level}, {bits:#x}");
    }
}

#[test]
fn thirty_two_bits() {
    let ram = Ram::new();
    let mut paging = long(4);
    paging.system.efer = 0;
    paging.system.cr4 = bits::CR4_PSE;
    let address = 0x0040_5678u64;
    // A table, and its page; then a page of 4 MiB above 4 GiB.
    ram.put(ROOT + 4, &0x0001_1007u32.to_le_bytes());
    ram.put(0x1_1000 + 5 * 4, &0x0000_9003u32.to_le_bytes());
    ram.put(ROOT + 8, &(0x0080_0083u32 | 1 << 13).to_le_bytes());
    assert_eq!(
        paging.translate(&ram, address, Access::Write, true),
        Ok(0x9678)
    );
    let mut leaf = [0; 4];
    ram.get(0x1_1000 + 5 * 4, &mut leaf);
    assert_eq!(u32::from_le_bytes(leaf), 0x9063);
    assert_eq!(
        paging.translate(&ram, 0x0081_2345, Access::Read, false),
        Ok(0x1_0081_2345)
    );
    assert_eq!(
        paging.translate(&ram, 0x00c0_0000, Access::Write, false),
        Err(Exception::page_fault(0x00c0_0000, 2))
    );
}

#[test]
fn physical_address_extension() {
    let ram = Ram::new();
    let mut paging = long(4);
    paging.system.efer = bits::EFER_NXE;
    paging.system.cr3 = ROOT + 0x20;
    let address = 0x4020_1234u64;
    // The second of four pointers, the second directory entry, the second page.
    ram.put(ROOT + 0x28, &0x1_1001u64.to_le_bytes());
    ram.put(0x1_1008, &0x1_2007u64.to_le_bytes());
    ram.put(0x1_2008, &0x9003u64.to_le_bytes());
    assert_eq!(
        paging.translate(&ram, address, Access::Write, true),
        Ok(0x9234)
    );
    assert_eq!(
        crate::testing::word(&ram, ROOT + 0x28),
        0x1_1001,
        "pointers have no accessed bit"
    );
    ram.put(ROOT + 0x28, &0x1_1003u64.to_le_bytes());
    assert_eq!(
        paging.translate(&ram, address, Access::Read, false),
        Err(Exception::page_fault(address, 9)),
        "nor a writable one"
    );
}

#[test]
fn tables_outside_of_memory_read_as_ones() {
    let ram = Ram::new();
    let mut paging = long(4);
    paging.system.cr3 = 0xf000_0000;
    assert_eq!(
        paging.translate(&ram, LINEAR, Access::Read, false),
        Err(Exception::page_fault(LINEAR, 9))
    );
}

proptest! {
    /// Whatever the tables say, a walk ends and gives an address that exists.
    #[test]
    fn any_tables(entries in prop::collection::vec(any::<u64>(), 5), cr0: u64, cr4: u64, efer: u64,
                  address: u64, write: bool, user: bool, pkru: u32, small: bool) {
        let ram = Ram::new();
        let mut paging = long(4);
        paging.system.cr0 = cr0;
        paging.system.cr4 = cr4;
        paging.system.efer = efer;
        paging.user = user;
        paging.pkru = pkru;
        for (page, value) in (0..).zip(&entries) {
            let value = if small { value & 0xe7f | (ROOT + 0x1000 * (page + 1)) } else { *value };
            for index in 0..512u64 {
                ram.put(ROOT + 0x1000 * page + index * 8, &value.to_le_bytes());
            }
        }
        let access = if write { Access::Write } else { Access::Read };
        if let Ok(physical) = paging.translate(&ram, address, access, write) {
            prop_assert!(physical < 1 << 52);
            prop_assert_eq!(physical & 0xfff, address & 0xfff);
        }
    }
}

#[test]
fn supervisor_pages_have_keys_of_their_own() {
    const KEY: u64 = 5;
    for (user_page, rights, write, wp, fault) in [
        (false, 0b01u32, false, true, true),
        (false, 0b01, true, true, true),
        (false, 0b10, false, true, false),
        (false, 0b10, true, true, true),
        (false, 0b10, true, false, false),
        (false, 0b00, true, true, false),
        // User pages are PKRU's.
        (true, 0b11, true, true, false),
    ] {
        let ram = Ram::new();
        let leaf = 0x5000 | P | W | if user_page { U } else { 0 } | KEY << 59;
        build(&ram, 4, LINEAR & 0xffff_ffff_ffff, 1, P | W | U, leaf);
        let mut paging = long(4);
        paging.system.cr4 |= bits::CR4_PKS | bits::CR4_PKE;
        paging.pkrs = rights << (2 * KEY);
        if !wp {
            paging.system.cr0 &= !bits::CR0_WP;
        }
        let access = if write { Access::Write } else { Access::Read };
        let found = paging.translate(&ram, LINEAR & 0xffff_ffff_ffff, access, false);
        match found {
            Ok(_) => assert!(!fault, "{user_page} {rights:#b} {write} {wp}"),
            Err(exception) => {
                assert!(fault, "{user_page} {rights:#b} {write} {wp}");
                let code = if write { 0x23 } else { 0x21 };
                assert_eq!(exception.error_code, Some(code));
            }
        }
    }
}

/// What a program fetches is read from ring 0 although SMAP keeps its page from ring 0, across pages as well.
#[test]
fn code_is_fetched_as_by_the_program() {
    const PAGES: u64 = 0x8000;
    let mut ram = Ram::new();
    let first = LINEAR & !0xfff;
    build(&ram, 4, first, 1, P | W | U, PAGES | P | U);
    ram.put(
        place(4, 1, first) + 8,
        &((PAGES + 0x1000) | P | U).to_le_bytes(),
    );
    ram.put(PAGES + 0xfff, &[0x0f, 0x05]);
    let mut cpu = TestCpu::new();
    cpu.system = SystemRegisters {
        cr4: bits::CR4_PAE | bits::CR4_SMAP,
        ..long(4).system
    };
    let mut code = [0; 2];
    let read = fetch_as_program(&mut cpu, &mut ram, first + 0xfff, &mut code);
    assert!(read.unwrap());
    assert_eq!(code, [0x0f, 0x05]);

    // A page of the kernel's, and none at all.
    ram.put(
        place(4, 1, first) + 8,
        &((PAGES + 0x1000) | P).to_le_bytes(),
    );
    for address in [first + 0xfff, first + 0x2000] {
        let read = fetch_as_program(&mut cpu, &mut ram, address, &mut code);
        assert!(!read.unwrap(), "{address:#x}");
    }
}
