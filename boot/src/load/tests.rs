use linux_loader::bootparam::boot_params;
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use proptest::prelude::*;

use super::*;
use crate::test_images::{
    CODE_OFFSET, INIT_SIZE, KERNEL_ADDRESS, MIB, PACKED, PAYLOAD_OFFSET, bzimage, code, elf, file,
    kernel, load_segment, memory, open, pack, pvh_note, read, set,
};
use crate::{Compression, KernelProblem, PayloadError, PlacementError, Unpack};

const RSDP: Option<GuestAddress> = Some(GuestAddress(0xe_0000));

fn load_contents(
    contents: &[u8],
    unpack: Unpack,
    memory: &GuestMemory,
) -> Result<Entry, LoadError> {
    let kernel = open(contents, unpack)?;
    load(memory, &kernel, None, "quiet", RSDP)
}

/// What [`kernel`] leaves in memory.
fn assert_kernel_loaded(memory: &GuestMemory) {
    let mut text = code(3 * 4096 + 17, 1);
    text[4096..8192].fill(0);
    assert!(read(memory, KERNEL_ADDRESS, text.len()) == text);
    let data = code(5000, 2);
    assert!(read(memory, KERNEL_ADDRESS + 0x10_0000, data.len()) == data);
    assert!(read(memory, KERNEL_ADDRESS + 0x10_0000 + 5000, 3000) == [0; 3000]);
    assert_eq!(read(memory, layout::COMMAND_LINE.start, 6), b"quiet\0");
}

#[test]
fn an_elf_with_the_note_starts_by_pvh() {
    let memory = memory(64 * MIB);
    let initrd_bytes = code(10_000, 7);
    let initrd_file = file(&initrd_bytes);
    let initrd = InitrdFile::open(initrd_file.path()).unwrap();
    let kernel = open(&kernel(true), Unpack::Auto).unwrap();
    let entry = load(&memory, &kernel, Some(&initrd), "quiet", RSDP).unwrap();
    assert_eq!(
        entry,
        Entry::Pvh {
            entry: u32::try_from(KERNEL_ADDRESS).unwrap() + 0x40,
            start_info: layout::PVH_START_INFO.start
        }
    );
    assert_kernel_loaded(&memory);

    let info: hvm_start_info = memory
        .read_obj(GuestAddress(layout::PVH_START_INFO.start))
        .unwrap();
    assert_eq!((info.magic, info.version, info.flags), (0x336e_c578, 1, 0));
    assert_eq!(info.cmdline_paddr, layout::COMMAND_LINE.start);
    assert_eq!(info.rsdp_paddr, 0xe_0000);
    assert_eq!(info.nr_modules, 1);
    let module: hvm_modlist_entry = memory.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), (64 * MIB - 0x3000, 10_000));
    assert!(read(&memory, module.paddr, 10_000) == initrd_bytes);
    let map = MemoryMap::new(64 * MIB, 52).unwrap().e820();
    assert_eq!(usize::try_from(info.memmap_entries).unwrap(), map.len());
    for (index, expected) in map.iter().enumerate() {
        let at = info.memmap_paddr + 24 * index as u64;
        let entry: hvm_memmap_table_entry = memory.read_obj(GuestAddress(at)).unwrap();
        assert_eq!(
            (entry.addr, entry.size),
            (expected.address, expected.length)
        );
        assert_eq!(entry.type_, expected.kind as u32);
    }
    let table_end = info.memmap_paddr + 24 * map.len() as u64;
    assert!(table_end <= layout::PVH_START_INFO.end);
}

#[test]
fn an_elf_without_the_note_starts_by_the_64_bit_protocol() {
    let memory = memory(64 * MIB);
    let initrd_file = file(&[0x5a; 4096]);
    let initrd = InitrdFile::open(initrd_file.path()).unwrap();
    let kernel = open(&kernel(false), Unpack::Auto).unwrap();
    let entry = load(&memory, &kernel, Some(&initrd), "quiet", RSDP).unwrap();
    assert_eq!(
        entry,
        Entry::Linux64 {
            entry: KERNEL_ADDRESS + 8,
            zero_page: layout::ZERO_PAGE.start
        }
    );
    assert_kernel_loaded(&memory);
    let page: boot_params = memory
        .read_obj(GuestAddress(layout::ZERO_PAGE.start))
        .unwrap();
    assert_eq!({ page.hdr.header }, 0x5372_6448);
    assert_eq!({ page.hdr.boot_flag }, 0xaa55);
    assert_eq!(page.hdr.type_of_loader, 0xff);
    assert_eq!(page.hdr.loadflags & 1, 1);
    assert_eq!({ page.hdr.cmd_line_ptr }, 0x2_0000);
    assert_eq!(u64::from(page.hdr.ramdisk_image), 64 * MIB - 4096);
    assert_eq!({ page.hdr.ramdisk_size }, 4096);
    assert_eq!({ page.acpi_rsdp_addr }, 0xe_0000);
    assert_eq!(page.sentinel, 0);
    let map = MemoryMap::new(64 * MIB, 52).unwrap().e820();
    assert_eq!(usize::from(page.e820_entries), map.len());
    let table = page.e820_table;
    for (entry, expected) in table.iter().zip(&map) {
        assert_eq!(
            ({ entry.addr }, { entry.size }),
            (expected.address, expected.length)
        );
        assert_eq!({ entry.r#type }, expected.kind as u32);
    }
    let tables = paging::identity_map(0).unwrap();
    assert!(read(&memory, layout::PAGE_TABLES.start, tables.len()) == tables);
    let gdt = segments::table_bytes(&segments::GDT_64);
    assert_eq!(read(&memory, layout::GDT, gdt.len()), gdt);
}

#[test]
fn every_payload_is_unpacked_to_the_same_kernel() {
    for compression in PACKED {
        for pvh in [true, false] {
            let memory = memory(64 * MIB);
            let image = bzimage(&pack(compression, &kernel(pvh)));
            let entry = load_contents(&image, Unpack::Auto, &memory).unwrap();
            assert_kernel_loaded(&memory);
            if pvh {
                assert!(
                    matches!(entry, Entry::Pvh { entry, .. } if u64::from(entry) == KERNEL_ADDRESS + 0x40)
                );
                continue;
            }
            assert!(matches!(entry, Entry::Linux64 { entry, .. } if entry == KERNEL_ADDRESS + 8));
            // The zero page has the image's own header.
            let page: boot_params = memory
                .read_obj(GuestAddress(layout::ZERO_PAGE.start))
                .unwrap();
            assert_eq!({ page.hdr.cmdline_size }, 1000);
            assert_eq!(page.hdr.setup_sects, 4);
            assert_eq!(u64::from(page.hdr.init_size), INIT_SIZE);
            assert_eq!({ page.hdr.initrd_addr_max }, 0x7fff_ffff);
        }
    }
}

#[test]
fn an_image_of_many_blocks_is_put_together_by_several_threads() {
    // Three blocks; a segment over the first boundary, one at the second, zeros, and notes at the end.
    let mut segments = vec![
        load_segment(0x10_0000, KERNEL_ADDRESS, code(9 << 20, 1)),
        load_segment(0xb0_0000, KERNEL_ADDRESS + (10 << 20), code(5 << 20, 2)),
        load_segment(16 << 20, KERNEL_ADDRESS + (20 << 20), vec![0; 1 << 20]),
        pvh_note(17 << 20, 0x100_0100),
    ];
    segments.swap(0, 1);
    let image = elf(KERNEL_ADDRESS, &segments);
    for compression in [Compression::Lz4, Compression::Zstd, Compression::Gzip] {
        let memory = memory(64 * MIB);
        let contents = bzimage(&pack(compression, &image));
        let entry = load_contents(&contents, Unpack::Auto, &memory).unwrap();
        assert!(matches!(
            entry,
            Entry::Pvh {
                entry: 0x100_0100,
                ..
            }
        ));
        for segment in &segments[..3] {
            assert!(read(&memory, segment.address, segment.bytes.len()) == segment.bytes);
        }
    }
    let memory = memory(64 * MIB);
    load_contents(&image, Unpack::Auto, &memory).unwrap();
    for segment in &segments[..3] {
        assert!(read(&memory, segment.address, segment.bytes.len()) == segment.bytes);
    }
}

#[test]
fn the_guest_unpacks_when_it_is_asked_to_or_has_to() {
    let not_elf = pack(Compression::Gzip, &code(5000, 9));
    let lzo = pack(Compression::Unknown, &kernel(true));
    let elf = pack(Compression::Lz4, &kernel(true));
    for (payload, unpack) in [
        (&not_elf, Unpack::Auto),
        (&lzo, Unpack::Auto),
        (&elf, Unpack::Guest),
    ] {
        let memory = memory(64 * MIB);
        let image = bzimage(payload);
        let entry = load_contents(&image, unpack, &memory).unwrap();
        assert_eq!(
            entry,
            Entry::Linux64 {
                entry: KERNEL_ADDRESS + 0x200,
                zero_page: layout::ZERO_PAGE.start
            }
        );
        let loaded = read(&memory, KERNEL_ADDRESS, PAYLOAD_OFFSET + payload.len());
        assert!(loaded == image[CODE_OFFSET..CODE_OFFSET + loaded.len()]);
    }
}

#[test]
fn a_relocatable_image_moves_down_when_memory_is_short() {
    let mut image = bzimage(&pack(Compression::Gzip, &code(5000, 9)));
    let memory = memory(16 * MIB);
    let entry = load_contents(&image, Unpack::Guest, &memory).unwrap();
    assert!(matches!(
        entry,
        Entry::Linux64 {
            entry: 0x20_0200,
            ..
        }
    ));
    let page: boot_params = memory
        .read_obj(GuestAddress(layout::ZERO_PAGE.start))
        .unwrap();
    assert_eq!({ page.hdr.code32_start }, 0x20_0000);

    image[0x234] = 0;
    let error = load_contents(&image, Unpack::Guest, &memory).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("give the machine at least 20 MiB"), "{text}");
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    let memory = memory(16 * MIB);
    for contents in [
        kernel(true),
        bzimage(&pack(Compression::Lz4, &kernel(true))),
    ] {
        let text = load_contents(&contents, Unpack::Auto, &memory)
            .unwrap_err()
            .to_string();
        assert!(text.contains("16 MiB: give the machine at least"), "{text}");
    }
}

#[test]
fn what_overlaps_the_boot_loaders_tables_is_refused() {
    for address in [0x7000, 0x9_f000, 0xe_0000, 0xf_f000] {
        let image = elf(address, &[load_segment(0x1000, address, code(0x1001, 1))]);
        let error = load_contents(&image, Unpack::Auto, &memory(16 * MIB)).unwrap_err();
        assert!(
            matches!(
                &error,
                LoadError::Kernel(error)
                    if matches!(error.problem, KernelProblem::Placement(PlacementError::Reserved { .. }))
            ),
            "{error}"
        );
    }
}

#[test]
fn a_corrupt_payload_is_an_error_not_a_guest_that_hangs() {
    for compression in PACKED {
        if compression == Compression::Stored {
            continue;
        }
        let payload = pack(compression, &kernel(true));
        // The size at the end, and the payload without its second half.
        let mut wrong_size = bzimage(&payload);
        let end = CODE_OFFSET + PAYLOAD_OFFSET + payload.len();
        wrong_size[end - 4] ^= 1;
        let short = [&payload[..payload.len() / 2], &payload[payload.len() - 4..]].concat();
        for image in [wrong_size, bzimage(&short)] {
            let error = load_contents(&image, Unpack::Auto, &memory(64 * MIB)).unwrap_err();
            let LoadError::Kernel(error) = error else {
                panic!("{error}");
            };
            assert!(
                matches!(
                    error.problem,
                    KernelProblem::Payload(
                        PayloadError::Corrupt { .. }
                            | PayloadError::Elf(crate::ElfError::Truncated { .. })
                    )
                ),
                "{compression}: {error}"
            );
        }
    }
}

#[test]
fn an_absurd_size_is_refused_before_anything_is_allocated() {
    for compression in PACKED {
        let payload = pack(compression, &kernel(true));
        let mut image = bzimage(&payload);
        let end = CODE_OFFSET + PAYLOAD_OFFSET + payload.len();
        set(&mut image, end - 4, 0xffff_fff0, 4);
        let error = load_contents(&image, Unpack::Auto, &memory(64 * MIB)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("4294967280 bytes"), "{text}");
    }
}

#[test]
fn the_command_line_is_measured_by_the_kernels_own_limit() {
    let memory = memory(64 * MIB);
    let image = bzimage(&pack(Compression::Gzip, &kernel(false)));
    let kernel = open(&image, Unpack::Auto).unwrap();
    let fits = "x".repeat(1000);
    assert!(load(&memory, &kernel, None, &fits, None).is_ok());
    let error = load(&memory, &kernel, None, &format!("{fits}x"), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel command line has 1001 bytes, but this kernel takes at most 1000: shorten it"
    );
}

#[test]
fn an_initrd_that_does_not_fit_names_the_room_that_there_is() {
    let memory = memory(32 * MIB);
    let big = tempfile::NamedTempFile::new().unwrap();
    big.as_file().set_len(20 * MIB).unwrap();
    let initrd = InitrdFile::open(big.path()).unwrap();
    let kernel = open(&kernel(true), Unpack::Auto).unwrap();
    let error = load(&memory, &kernel, Some(&initrd), "", None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("its 20971520 bytes do not fit"), "{text}");
    assert!(text.contains("15728640 bytes free"), "{text}");
}

#[test]
fn memory_of_another_layout_is_the_callers_mistake() {
    let kernel = open(&kernel(true), Unpack::Auto).unwrap();
    let apart = GuestMemory::from_ranges(&[
        (GuestAddress(0), 0x20_0000),
        (GuestAddress(0x40_0000), 0x1000),
    ])
    .unwrap();
    let error = load(&apart, &kernel, None, "", None).unwrap_err();
    assert!(matches!(error, LoadError::MemoryLayout { .. }), "{error}");
    // Several regions side by side are one range.
    let split = GuestMemory::from_ranges(&[
        (GuestAddress(0), 0x20_0000),
        (GuestAddress(0x20_0000), 64 << 20),
    ])
    .unwrap();
    load(&split, &kernel, None, "quiet", None).unwrap();
    assert_kernel_loaded(&split);
}

#[test]
fn a_kernel_can_be_loaded_again_after_its_path_is_gone() {
    let file = file(&bzimage(&pack(Compression::Xz, &kernel(true))));
    let opened = KernelFile::open(file.path(), Unpack::Auto).unwrap();
    drop(file);
    for _ in 0..2 {
        let memory = memory(64 * MIB);
        load(&memory, &opened, None, "quiet", RSDP).unwrap();
        assert_kernel_loaded(&memory);
    }
}

#[test]
fn pages_of_zeros_are_not_touched() {
    let image = elf(
        KERNEL_ADDRESS,
        &[load_segment(0x1000, KERNEL_ADDRESS, vec![0; 8 << 20])],
    );
    let memory = memory(64 * MIB);
    // What a page held before shows that it was not written.
    memory
        .write_obj(7u8, GuestAddress(KERNEL_ADDRESS + 5))
        .unwrap();
    load_contents(&image, Unpack::Auto, &memory).unwrap();
    assert_eq!(read(&memory, KERNEL_ADDRESS + 5, 1), [7]);
}

/// Changes of single bytes, at places where headers are more often than elsewhere.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let offset = prop_oneof![0usize..0x100, 0x1f0usize..0x280, 0usize..0x9000];
    proptest::collection::vec((offset, any::<u8>()), 1..6)
}

fn mutate(image: &mut [u8], changes: &[(usize, u8)]) {
    for (offset, value) in changes {
        if let Some(byte) = image.get_mut(*offset) {
            *byte = *value;
        }
    }
}

/// Loads or fails, but with one line that names the file.
fn survives(contents: &[u8], unpack: Unpack) {
    let file = file(contents);
    let result = KernelFile::open(file.path(), unpack)
        .map_err(LoadError::from)
        .and_then(|kernel| load(&memory(32 * MIB), &kernel, None, "quiet", RSDP));
    if let Err(error) = result {
        let text = error.to_string();
        let named = text.contains(&file.path().display().to_string());
        assert!(
            named || matches!(error, LoadError::CommandLine(_)),
            "{text}"
        );
        assert!(!text.contains('\n'), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_elf_is_loaded_or_refused(changes in mutations(), pvh: bool) {
        let mut image = kernel(pvh);
        mutate(&mut image, &changes);
        survives(&image, Unpack::Auto);
    }

    #[test]
    fn a_mutated_bzimage_is_loaded_or_refused(
        changes in mutations(),
        inner in mutations(),
        which in 0..PACKED.len(),
        guest: bool,
    ) {
        let mut packed = kernel(true);
        // Every other image is sound inside, so that the decoders see bad streams as well.
        if changes.len() % 2 == 0 {
            mutate(&mut packed, &inner);
        }
        let mut image = bzimage(&pack(PACKED[which], &packed));
        mutate(&mut image, &changes);
        survives(&image, if guest { Unpack::Guest } else { Unpack::Auto });
    }

    #[test]
    fn a_mutated_payload_is_loaded_or_refused(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        which in 0..PACKED.len(),
    ) {
        let mut payload = pack(PACKED[which], &kernel(true));
        for (index, value) in &changes {
            let at = index.index(payload.len());
            payload[at] = *value;
        }
        survives(&bzimage(&payload), Unpack::Auto);
    }

    #[test]
    fn a_truncated_image_is_loaded_or_refused(keep in any::<prop::sample::Index>(), which in 0..8usize) {
        let mut image = match PACKED.get(which) {
            Some(compression) => bzimage(&pack(*compression, &kernel(true))),
            None => kernel(true),
        };
        image.truncate(keep.index(image.len()));
        survives(&image, Unpack::Auto);
    }
}
