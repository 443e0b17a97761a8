//! Objects that are objects and nothing else.
//!
//! serde also accepts the members of a struct as a list, in their order: `["10.0.0.0/16", null]` for a pool. The OpenAPI
//! document does not, and in such a list a value can take the place of another one without an error. [`ObjectsOnly`] around
//! any deserializer refuses a list where a struct is expected, at every depth. Enums that serde reads in two passes
//! (`untagged`, or with `tag`) and structs with `flatten` are read by serde's own deserializers below that point; no
//! request has any.

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::fmt;

/// Deserializer that accepts only objects for structs.
#[derive(Debug)]
pub struct ObjectsOnly<D>(pub D);

/// Visitor of any value but a struct.
struct AnyVisitor<V>(V);

/// Visitor of a struct.
struct StructVisitor<V>(V);

/// Access to the parts of a value.
struct PartAccess<A>(A);

/// Seed of a part.
struct PartSeed<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for PartSeed<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(ObjectsOnly(deserializer))
    }
}

macro_rules! forward_deserialize {
    ($($method:ident ($($argument:ident: $kind:ty),*) => $visitor:ident;)+) => {
        $(
            fn $method<V: Visitor<'de>>(
                self, $($argument: $kind,)* visitor: V
            ) -> Result<V::Value, D::Error> {
                self.0.$method($($argument,)* $visitor(visitor))
            }
        )+
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for ObjectsOnly<D> {
    type Error = D::Error;

    forward_deserialize! {
        deserialize_any() => AnyVisitor;
        deserialize_bool() => AnyVisitor;
        deserialize_i8() => AnyVisitor;
        deserialize_i16() => AnyVisitor;
        deserialize_i32() => AnyVisitor;
        deserialize_i64() => AnyVisitor;
        deserialize_i128() => AnyVisitor;
        deserialize_u8() => AnyVisitor;
        deserialize_u16() => AnyVisitor;
        deserialize_u32() => AnyVisitor;
        deserialize_u64() => AnyVisitor;
        deserialize_u128() => AnyVisitor;
        deserialize_f32() => AnyVisitor;
        deserialize_f64() => AnyVisitor;
        deserialize_char() => AnyVisitor;
        deserialize_str() => AnyVisitor;
        deserialize_string() => AnyVisitor;
        deserialize_bytes() => AnyVisitor;
        deserialize_byte_buf() => AnyVisitor;
        deserialize_option() => AnyVisitor;
        deserialize_unit() => AnyVisitor;
        deserialize_unit_struct(name: &'static str) => AnyVisitor;
        deserialize_newtype_struct(name: &'static str) => AnyVisitor;
        deserialize_seq() => AnyVisitor;
        deserialize_tuple(len: usize) => AnyVisitor;
        deserialize_tuple_struct(name: &'static str, len: usize) => AnyVisitor;
        deserialize_map() => AnyVisitor;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) => StructVisitor;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) => AnyVisitor;
        deserialize_identifier() => AnyVisitor;
        deserialize_ignored_any() => AnyVisitor;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! forward_visit {
    ($($method:ident: $kind:ty;)+) => {
        $(
            fn $method<E: Error>(self, value: $kind) -> Result<V::Value, E> {
                self.0.$method(value)
            }
        )+
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for AnyVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    forward_visit! {
        visit_bool: bool;
        visit_i8: i8;
        visit_i16: i16;
        visit_i32: i32;
        visit_i64: i64;
        visit_i128: i128;
        visit_u8: u8;
        visit_u16: u16;
        visit_u32: u32;
        visit_u64: u64;
        visit_u128: u128;
        visit_f32: f32;
        visit_f64: f64;
        visit_char: char;
        visit_str: &str;
        visit_borrowed_str: &'de str;
        visit_string: String;
        visit_bytes: &[u8];
        visit_borrowed_bytes: &'de [u8];
        visit_byte_buf: Vec<u8>;
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(ObjectsOnly(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(ObjectsOnly(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(PartAccess(seq))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(PartAccess(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(PartAccess(data))
    }
}

// Without `visit_seq`: a list is an error.
impl<'de, V: Visitor<'de>> Visitor<'de> for StructVisitor<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(PartAccess(map))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for PartAccess<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(PartSeed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for PartAccess<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(PartSeed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for PartAccess<A> {
    type Error = A::Error;
    type Variant = PartAccess<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(value, variant)| (value, PartAccess(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for PartAccess<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(PartSeed(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, AnyVisitor(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, StructVisitor(visitor))
    }
}

/// Deserializes a value whose structs must be objects.
///
/// # Errors
///
/// Those of the deserializer, and a list in place of an object.
pub fn from_objects<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    T::deserialize(ObjectsOnly(deserializer))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]
mod tests {
    use super::*;
    use crate::declaration::ApplyRequest;

    fn parse<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, serde_json::Error> {
        from_objects(&mut serde_json::Deserializer::from_str(json))
    }

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum VariantSample {
        Unit,
        New(ValuePair),
        Tuple(ValuePair, u8),
        Fields { pair: ValuePair },
    }

    #[derive(Debug, PartialEq, Eq, serde::Deserialize)]
    struct ValuePair {
        a: u8,
        b: Option<Box<str>>,
    }

    #[test]
    fn a_list_is_refused_in_place_of_an_object_at_every_depth() {
        for json in [
            r#"[[], [], false, false]"#,
            r#"{"pools":[["lan","10.0.0.0/24",null,null,[],null,[],null]]}"#,
            r#"{"declarations":[{"name":"a","network":["lan",null]}]}"#,
            r#"{"declarations":[{"name":"a","network":{"interfaces":[["eth0"]]}}]}"#,
            r#"{"declarations":[{"name":"a","network":{"routes":[["10.0.0.0/8"]]}}]}"#,
        ] {
            let error = parse::<ApplyRequest>(json).unwrap_err().to_string();
            assert!(
                error.contains("invalid type: sequence, expected an object"),
                "{json}: {error}"
            );
        }
        for json in [r#"{"new":[1,"x"]}"#, r#"{"tuple":[[1,"x"],2]}"#, r#"{"fields":[[1,"x"]]}"#] {
            let error = parse::<VariantSample>(json).unwrap_err().to_string();
            assert!(error.contains("expected an object"), "{json}: {error}");
        }
    }

    #[test]
    fn everything_else_is_as_without_it() {
        let json = r#"{"declarations":[{"name":"a","labels":{"x":"y"},"network":null,"drift":"repair"},
            {"name":"b","network":{"mtu":1400,"verify":["link"],"interfaces":[{"name":"eth0"}]}}],"prune":true}"#;
        assert_eq!(
            parse::<ApplyRequest>(json).unwrap(),
            serde_json::from_str::<ApplyRequest>(json).unwrap()
        );
        let pair = |a| ValuePair { a, b: Some("x".into()) };
        for (json, expected) in [
            (r#""unit""#, VariantSample::Unit),
            (r#"{"new":{"a":1,"b":"x"}}"#, VariantSample::New(pair(1))),
            (r#"{"tuple":[{"a":1,"b":"x"},2]}"#, VariantSample::Tuple(pair(1), 2)),
            (r#"{"fields":{"pair":{"a":1,"b":"x"}}}"#, VariantSample::Fields { pair: pair(1) }),
        ] {
            assert_eq!(parse::<VariantSample>(json).unwrap(), expected, "{json}");
        }
        for json in ["{\"name\":\"a\",\"name\":\"b\"}", "{\"nme\":\"a\"}", "{\"name\":7}", "7"] {
            let with = parse::<crate::declaration::Declaration>(json).unwrap_err().to_string();
            let without = serde_json::from_str::<crate::declaration::Declaration>(json);
            let without = without.unwrap_err().to_string();
            assert_eq!(with.replace("an object", "struct Declaration"), without, "{json}");
        }
    }
}
