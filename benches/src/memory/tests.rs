use super::{Usage, sum};

#[test]
fn the_guest_counts_for_itself() {
    let maps = "\
55d000-55e000 r-xp 00000000 fe:00 1 /bin/x
Size:                  4 kB
Rss:                   4 kB
Pss:                   2 kB
Private_Clean:         4 kB
Private_Dirty:         0 kB
VmFlags: rd ex
7f0000-7f8000 rw-p 00000000 00:00 0
Size:               2048 kB
Rss:                1000 kB
Private_Clean:         0 kB
Private_Dirty:      1000 kB
7f9000-7fa000 rw-p 00000000 00:00 0 [heap]
Size:                  8 kB
Rss:                   8 kB
Private_Clean:         0 kB
Private_Dirty:         7 kB
";
    let expected = Usage {
        private_kib: 11,
        resident_kib: 12,
        guest_kib: 1000,
    };
    assert_eq!(sum(maps, 2048), expected);
}
