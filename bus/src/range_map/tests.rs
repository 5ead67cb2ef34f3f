use proptest::prelude::*;

use super::*;

#[test]
fn an_access_that_straddles_the_end_finds_nothing() {
    let mut map = RangeMap::new();
    map.insert(0x10, 4, 'a').unwrap();
    assert_eq!(map.find(0x10, 4), Some((&'a', 0)));
    assert_eq!(map.find(0x13, 1), Some((&'a', 3)));
    assert_eq!(map.find(0x12, 4), None);
    assert_eq!(map.find(0xf, 2), None);
    assert_eq!(map.find(0x10, 0), None);
    assert_eq!(map.find(u64::MAX, 2), None);
}

#[test]
fn the_last_address_of_the_space_can_be_used() {
    let mut map = RangeMap::new();
    map.insert(u64::MAX, 1, ()).unwrap();
    assert!(map.find(u64::MAX, 1).is_some());
    assert!(matches!(
        map.insert(u64::MAX, 2, ()),
        Err(RangeMapError::Invalid { .. })
    ));
    assert!(matches!(
        map.insert(0, 0, ()),
        Err(RangeMapError::Invalid { .. })
    ));
}

#[test]
fn what_is_taken_out_leaves_room() {
    let mut map = RangeMap::new();
    map.insert(0x10, 4, 'a').unwrap();
    map.insert(0x20, 4, 'b').unwrap();
    assert_eq!(map.remove(0x12), None);
    assert_eq!(map.remove(0x10), Some('a'));
    assert_eq!(map.remove(0x10), None);
    assert_eq!(map.find(0x10, 1), None);
    map.insert(0xc, 0x10, 'c').unwrap();
    assert_eq!(map.find(0x20, 4), Some((&'b', 0)));
}

proptest! {
    /// The map agrees with a plain list that is searched from end to end.
    #[test]
    fn agrees_with_a_linear_search(
        ranges in prop::collection::vec((0u64..200, 1u64..20), 1..20),
        probes in prop::collection::vec((0u64..230, 1u64..10), 1..50),
    ) {
        let mut map = RangeMap::new();
        let mut list: Vec<(u64, u64, usize)> = Vec::new();
        for (number, (start, length)) in ranges.into_iter().enumerate() {
            let last = start + length - 1;
            let free = list.iter().all(|&(other, other_last, _)| last < other || start > other_last);
            prop_assert_eq!(map.insert(start, length, number).is_ok(), free);
            if free {
                list.push((start, last, number));
            }
        }
        for (address, length) in probes {
            let expected = list
                .iter()
                .find(|&&(start, last, _)| start <= address && address + length - 1 <= last)
                .map(|&(start, _, number)| (number, address - start));
            prop_assert_eq!(map.find(address, length).map(|(&number, offset)| (number, offset)), expected);
        }
    }
}
