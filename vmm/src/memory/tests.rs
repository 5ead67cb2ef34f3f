use vm_memory::Bytes;

use super::*;
use crate::config::ByteSize;

fn config(size_bytes: u64) -> MemoryConfig {
    MemoryConfig::with_size(ByteSize(size_bytes))
}

fn mapped(config: &MemoryConfig) -> Result<GuestMemory, MemoryError> {
    map(config, &MemoryMap::new(config.size.0, 48).unwrap())
}

#[test]
fn memory_beyond_the_hole_is_a_second_region() {
    let memory = mapped(&config(4 << 30)).unwrap();
    let regions: Vec<_> = memory
        .iter()
        .map(|region| (region.start_addr().0, region.len()))
        .collect();
    assert_eq!(regions, [(0, 3 << 30), (4 << 30, 1 << 30)]);
}

#[test]
fn terabytes_are_address_space_until_they_are_used() {
    let memory = mapped(&config(4 << 40)).unwrap();
    let last = GuestAddress((4 << 40) + (1 << 30) - 8);
    memory.write_obj(0x1234_u64, last).unwrap();
    assert_eq!(memory.read_obj::<u64>(last).unwrap(), 0x1234);
}

#[test]
fn shared_memory_is_one_file() {
    let memory = mapped(&MemoryConfig {
        shared: true,
        prefault: true,
        ..config(16 << 20)
    })
    .unwrap();
    memory.write_obj(7_u8, GuestAddress(0x1000)).unwrap();
    let region = memory.iter().next().unwrap();
    let offset = region.file_offset().unwrap();
    let mut byte = [0];
    std::os::unix::fs::FileExt::read_exact_at(offset.file(), &mut byte, 0x1000).unwrap();
    assert_eq!(byte, [7]);
}

#[test]
fn huge_pages_that_the_host_lacks_are_said_with_the_remedy() {
    // More than any test machine has reserved.
    let error = mapped(&MemoryConfig {
        hugepages: HugePages::Size1G,
        ..config(1 << 40)
    })
    .unwrap_err();
    assert!(error.to_string().contains("nr_hugepages"), "{error}");
}
