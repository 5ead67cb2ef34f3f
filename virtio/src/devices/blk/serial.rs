//! The serial number of a disk (virtio 1.3, 5.2.6, VIRTIO_BLK_T_GET_ID).

use std::str::FromStr;

/// Bytes of a serial number.
const SERIAL_BYTES: usize = 20;

/// A serial number: up to 20 bytes, the rest zeros. Without one it is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Serial([u8; SERIAL_BYTES]);

/// A serial number that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the serial number \"{text}\" has {} bytes; there is room for 20", text.len())]
pub struct SerialTooLong {
    /// The serial number.
    pub text: String,
}

impl Serial {
    /// The bytes as a guest reads them.
    pub fn bytes(&self) -> &[u8; SERIAL_BYTES] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = SerialTooLong;

    fn from_str(text: &str) -> Result<Self, SerialTooLong> {
        let mut bytes = [0; SERIAL_BYTES];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Ok(Self(bytes))
            }
            None => Err(SerialTooLong {
                text: text.to_owned(),
            }),
        }
    }
}
