//! `key=value,key=value`: the notation of options with several keys, as a serde format.
//!
//! The same structs that are read from TOML and JSON are read from it. `on`, `off`, `true` and `false`
//! are booleans; a comma inside a value is written twice; `=` splits a key from its value only the first
//! time. The first item may be a value alone where the option has a principal key: `1G` is `size=1G`.
//! Keys that are unknown, given twice or missing are errors that name them.

mod error;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

pub use error::KeyValueError;

/// Reads a value with keys. `principal_key` is the key of a first item that has none.
///
/// # Errors
///
/// What is wrong with `text`, with the key where one is to blame.
pub fn from_pairs<T: DeserializeOwned>(
    text: &str,
    principal_key: &'static str,
) -> Result<T, KeyValueError> {
    T::deserialize(Pairs {
        items: split(text, principal_key)?,
        value: None,
    })
}

/// Reads a value without keys, the whole of `text`.
///
/// # Errors
///
/// What is wrong with `text`.
pub fn from_scalar<T: DeserializeOwned>(text: &str) -> Result<T, KeyValueError> {
    T::deserialize(Scalar(text.to_owned()))
}

type Item = (String, String);

/// The items of `text`: keys and values with doubled commas undone.
fn split(
    text: &str,
    principal_key: &'static str,
) -> Result<std::vec::IntoIter<Item>, KeyValueError> {
    let mut items: Vec<Item> = Vec::new();
    for raw in raw_items(text) {
        let (key, value) = match raw.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if items.is_empty() && !raw.is_empty() => (principal_key.to_owned(), raw),
            None => return Err(KeyValueError::NoValue(raw)),
        };
        if items.iter().any(|(earlier, _)| *earlier == key) {
            return Err(KeyValueError::Twice(key));
        }
        items.push((key, value));
    }
    Ok(items.into_iter())
}

/// Splits at single commas; two commas are one that belongs to the item.
fn raw_items(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(character);
        }
    }
    items
}

/// Deserializes a struct or a map from items.
#[derive(Debug)]
pub struct Pairs {
    items: std::vec::IntoIter<Item>,
    /// The value of the key that was given last.
    value: Option<Item>,
}

impl<'de> Deserializer<'de> for Pairs {
    type Error = KeyValueError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyValueError> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Pairs {
    type Error = KeyValueError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, KeyValueError> {
        self.value = self.items.next();
        match &self.value {
            Some((key, _)) => {
                let key: StrDeserializer<'_, KeyValueError> = key.as_str().into_deserializer();
                seed.deserialize(key).map(Some)
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, KeyValueError> {
        let (key, value) = self.value.take().unwrap_or_default();
        seed.deserialize(Scalar(value))
            .map_err(|error| error.of_key(key))
    }
}

/// Deserializes one value: what the text means depends on what is asked for.
struct Scalar(String);

impl Scalar {
    fn number<T: std::str::FromStr>(self, range: &'static str) -> Result<T, KeyValueError> {
        self.0
            .parse()
            .map_err(|_| KeyValueError::value(format!("'{}' is not a number {range}", self.0)))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $range:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyValueError> {
            visitor.$visit(self.number::<$type>($range)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Scalar {
    type Error = KeyValueError;

    /// For types that look at what they get, such as a size that may be a number or a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyValueError> {
        visitor.visit_string(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyValueError> {
        match self.0.as_str() {
            "on" | "true" => visitor.visit_bool(true),
            "off" | "false" => visitor.visit_bool(false),
            other => Err(KeyValueError::value(format!(
                "'{other}' is neither on nor off: use on or off"
            ))),
        }
    }

    numbers! {
        deserialize_u8 visit_u8 u8, "from 0 to 255";
        deserialize_u16 visit_u16 u16, "from 0 to 65535";
        deserialize_u32 visit_u32 u32, "from 0 to 4294967295";
        deserialize_u64 visit_u64 u64, "of at least 0";
        deserialize_i8 visit_i8 i8, "from -128 to 127";
        deserialize_i16 visit_i16 i16, "from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "from -2147483648 to 2147483647";
        deserialize_i64 visit_i64 i64, "that fits";
        deserialize_f32 visit_f32 f32, "";
        deserialize_f64 visit_f64 f64, "";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, KeyValueError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, KeyValueError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, KeyValueError> {
        visitor.visit_enum(self)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

/// An enum is the name of one of its variants, which has no fields.
impl<'de> EnumAccess<'de> for Scalar {
    type Error = KeyValueError;
    type Variant = NoFields;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, NoFields), KeyValueError> {
        Ok((seed.deserialize(self)?, NoFields))
    }
}

struct NoFields;

impl NoFields {
    fn refuse<T>() -> Result<T, KeyValueError> {
        Err(KeyValueError::value("a value cannot have fields"))
    }
}

impl<'de> VariantAccess<'de> for NoFields {
    type Error = KeyValueError;

    fn unit_variant(self) -> Result<(), KeyValueError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        _seed: T,
    ) -> Result<T::Value, KeyValueError> {
        Self::refuse()
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> Result<V::Value, KeyValueError> {
        Self::refuse()
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, KeyValueError> {
        Self::refuse()
    }
}

#[cfg(test)]
mod tests;
