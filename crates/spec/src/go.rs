//! Go's reading of JSON, over a deserializer of serde's.
//!
//! What callers send was written for Go's `encoding/json`. It differs from what serde derives: a list is no structure, `null` is the
//! zero value of every type, and the keys of structures are found without regard to case.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt::{Formatter, Result as Written};
use std::iter;

/// The names of a structure's fields.
type Fields = &'static [&'static str];

/// A deserializer that is read as Go would; also the seed of what is inside of it.
pub(crate) struct Go<T>(pub(crate) T);

/// `$method` asks for an optional value, and gives the visitor the zero value in place of `null`. `$inside` is the visitor of another.
macro_rules! or_zero {
    ($($method:ident $inside:ident => $visit:ident($zero:expr);)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            struct OrZero<V>(V);
            impl<'de, V: Visitor<'de>> Visitor<'de> for OrZero<V> {
                type Value = V::Value;
                fn expecting(&self, f: &mut Formatter<'_>) -> Written {
                    self.0.expecting(f)
                }
                fn visit_none<E: Error>(self) -> Result<V::Value, E> {
                    self.0.$visit($zero)
                }
                fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
                    deserializer.$method($inside(self.0))
                }
            }
            self.0.deserialize_option(OrZero(visitor))
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Go<D> {
    type Error = D::Error;

    or_zero! {
        deserialize_bool itself => visit_bool(false);
        deserialize_i8 itself => visit_i8(0);
        deserialize_i16 itself => visit_i16(0);
        deserialize_i32 itself => visit_i32(0);
        deserialize_i64 itself => visit_i64(0);
        deserialize_u8 itself => visit_u8(0);
        deserialize_u16 itself => visit_u16(0);
        deserialize_u32 itself => visit_u32(0);
        deserialize_u64 itself => visit_u64(0);
        deserialize_str itself => visit_str("");
        deserialize_string itself => visit_str("");
        deserialize_seq List => visit_seq(SeqDeserializer::new(iter::empty::<()>()));
        deserialize_map map => visit_map(MapDeserializer::new(iter::empty::<((), ())>()));
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: Fields,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Struct(Object { fields, visitor }))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Maybe(visitor))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    // Nothing of ours asks for these.
    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct newtype_struct tuple tuple_struct enum identifier
    }
}

fn itself<V>(visitor: V) -> V {
    visitor
}

fn map<V>(visitor: V) -> Object<V> {
    Object { fields: &[], visitor }
}

struct Struct<V>(Object<V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for Struct<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visitor.visit_map(MapDeserializer::new(iter::empty::<((), ())>()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        // As a structure it could be a list, of its fields in their order.
        deserializer.deserialize_map(self.0)
    }
}

struct Maybe<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Maybe<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Go(deserializer))
    }
}

struct List<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for List<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        self.0.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Go(list))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Go<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Go(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

/// A structure, or a map, which has no fields.
struct Object<V> {
    fields: Fields,
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Object<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Object { fields: self.fields, visitor: map })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Object<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.visitor.next_key_seed(Key { fields: self.fields, inner: seed })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.visitor.next_value_seed(Go(seed))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Go<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Go(deserializer))
    }
}

/// The seed, the deserializer and the visitor of a key.
struct Key<T> {
    fields: Fields,
    inner: T,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Key { fields: self.fields, inner: deserializer })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Key<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_str(Key { fields: self.fields, inner: visitor })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Key<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut Formatter<'_>) -> Written {
        self.inner.expecting(f)
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<V::Value, E> {
        // Of two keys, Go takes the one that is exactly the same; there are none that differ by case only.
        let field = self.fields.iter().find(|field| field.eq_ignore_ascii_case(key));
        self.inner.visit_str(field.copied().unwrap_or(key))
    }
}

#[cfg(test)]
mod tests {
    use crate::{Process, Resources, Spec, from_slice};

    fn refused(text: &str) -> String {
        from_slice::<Spec>(text.as_bytes()).expect_err(text).to_string()
    }

    #[test]
    fn a_list_is_no_structure_at_any_depth() {
        for text in [
            "[]",
            r#"["1.3.0", null]"#,
            r#"{"root":["x"]}"#,
            r#"{"hooks":[]}"#,
            r#"{"hooks":{"poststop":[["/bin/true"]]}}"#,
            r#"{"mounts":[["/proc","proc"]]}"#,
            r#"{"process":[true]}"#,
            r#"{"process":{"user":[]}}"#,
            r#"{"process":{"consoleSize":[1,2]}}"#,
            r#"{"process":{"rlimits":[["RLIMIT_CORE",1,1]]}}"#,
            r#"{"linux":[]}"#,
            r#"{"linux":{"resources":[[]]}}"#,
            r#"{"linux":{"resources":{"memory":[1]}}}"#,
            r#"{"linux":{"resources":{"rdma":{"mlx5_0":[1,2]}}}}"#,
            r#"{"linux":{"resources":{"blockIO":{"weightDevice":[[8,0,100]]}}}}"#,
            r#"{"linux":{"seccomp":{"syscalls":[{"args":[[0,1,2,"SCMP_CMP_EQ"]]}]}}}"#,
            r#"{"annotations":[]}"#,
        ] {
            assert!(refused(text).contains("invalid type: sequence, expected "), "{text}: {}", refused(text));
        }
        assert!(refused(r#"{"process":{"user":[]}}"#).starts_with("process.user: invalid type: sequence"));
        assert!(from_slice::<Resources>(b"[]").is_err() && from_slice::<Resources>(br#"{"cpu":[1]}"#).is_err());
        assert!(from_slice::<Process>(br#"{"user":[0,0]}"#).is_err());
    }

    #[test]
    fn an_object_is_no_list_and_neither_is_a_value() {
        for text in [
            r#"{"mounts":{}}"#,
            r#"{"process":{"args":{}}}"#,
            r#"{"process":"sh"}"#,
            r#"{"hostname":{}}"#,
            r#"{"hostname":["h"]}"#,
            r#"{"process":{"terminal":[]}}"#,
        ] {
            assert!(refused(text).contains("invalid type: "), "{text}: {}", refused(text));
        }
    }

    #[test]
    fn null_is_the_zero_of_every_type() {
        let text = br#"{"ociVersion":null,"root":{"path":null,"readonly":null},"mounts":[null,{"destination":"/a","options":null}],
            "process":{"args":["sh",null],"user":null,"terminal":null,"oomScoreAdj":null,"rlimits":[null],"capabilities":null},
            "annotations":{"a":null},"hooks":null,
            "linux":{"sysctl":null,"netDevices":{"eth0":null},"uidMappings":[{"size":null}],"resources":{"rdma":{"m":null}}}}"#;
        let spec: Spec = from_slice(text).unwrap();
        assert_eq!((spec.mounts.len(), spec.mounts[1].destination.as_str()), (2, "/a"));
        let process = spec.process.unwrap();
        assert_eq!((process.args, process.rlimits.len()), (vec!["sh".to_owned(), String::new()], 1));
        assert_eq!(spec.annotations["a"], "");
        let linux = spec.linux.unwrap();
        assert_eq!((linux.net_devices.len(), linux.uid_mappings.len()), (1, 1));
        assert_eq!(linux.resources.unwrap().rdma.len(), 1);
    }

    #[test]
    fn keys_of_structures_have_no_case_and_those_of_maps_have() {
        let text = br#"{"HostName":"h","PROCESS":{"ARGS":["a"],"execcpuaffinity":{"Initial":"0"}},"annotations":{"OciVersion":"x","a":"1","A":"2"}}"#;
        let spec: Spec = from_slice(text).unwrap();
        let process = spec.process.unwrap();
        assert_eq!((spec.hostname.as_str(), process.args[0].as_str()), ("h", "a"));
        assert_eq!(process.exec_cpu_affinity.unwrap().initial, "0");
        assert_eq!((spec.annotations.len(), spec.annotations["OciVersion"].as_str()), (3, "x"));
        // They do not come into the second reading's way either.
        let text = br#"{"hostname":"a","hostname":"b","annotations":{"a":"1","A":"2"}}"#;
        assert_eq!(from_slice::<Spec>(text).unwrap().annotations.len(), 2);
    }

    #[test]
    fn whole_numbers_are_written_as_such() {
        for number in ["1e3", "1.0", "-1", "4294967296", "\"1\"", "true"] {
            let text = format!(r#"{{"process":{{"user":{{"uid":{number}}}}}}}"#);
            assert!(refused(&text).starts_with("process.user.uid: invalid "), "{text}");
        }
    }
}
