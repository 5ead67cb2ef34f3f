use super::*;

fn buffer(bytes: &mut [u8]) -> IoBuffer {
    // SAFETY: the tests keep the bytes and use them through the buffer alone while it is used.
    unsafe { IoBuffer::new(bytes.as_mut_ptr(), bytes.len()) }
}

#[test]
fn taking_bytes_off_drops_the_buffers_that_are_done() {
    let (mut first, mut second) = ([1_u8; 3], [2_u8; 5]);
    let mut rest = Rest::default();
    rest.fill(&[buffer(&mut first), buffer(&mut []), buffer(&mut second)]);
    assert_eq!(total_bytes(rest.buffers()), 8);
    rest.advance(2);
    assert_eq!(rest.buffers().first().unwrap().len(), 1);
    rest.advance(1);
    assert_eq!(rest.buffers().len(), 1);
    rest.advance(4);
    assert_eq!(total_bytes(rest.buffers()), 1);
    rest.advance(100);
    assert!(rest.is_empty());
    rest.fill(&[buffer(&mut [])]);
    assert!(rest.is_empty());
}

#[test]
fn copies_go_through_all_buffers() {
    let (mut first, mut second) = (*b"abc", *b"defgh");
    let mut rest = Rest::default();
    rest.fill(&[buffer(&mut first), buffer(&mut second)]);
    rest.advance(1);
    let mut copy = [0; 5];
    rest.copy_out(&buffer(&mut copy).volatile());
    assert_eq!(&copy, b"bcdef");
    assert_eq!(total_bytes(rest.buffers()), 7);
    let mut source = *b"01234";
    rest.copy_in(&buffer(&mut source).volatile());
    assert_eq!(total_bytes(rest.buffers()), 2);
    assert_eq!((&first, &second), (b"a01", b"234gh"));
}
