//! Lists from a peer that is not trusted with memory.
//!
//! The frame limits the bytes, but an empty string takes 3 bytes in JSON and 24 in memory. Decoding
//! fails at a list that is longer than any correct peer sends.

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;

/// Deserializes a list of at most `MAX` elements.
pub(super) fn list<'de, const MAX: usize, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(BoundedListVisitor::<MAX, T>(PhantomData))
}

/// Deserializes a list of at most `MAX` elements, or `null`.
pub(super) fn optional_list<'de, const MAX: usize, D, T>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<BoundedList<MAX, T>>::deserialize(deserializer)?.map(|bounded| bounded.0))
}

struct BoundedList<const MAX: usize, T>(Vec<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Deserialize<'de> for BoundedList<MAX, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        list::<MAX, D, T>(deserializer).map(Self)
    }
}

struct BoundedListVisitor<const MAX: usize, T>(PhantomData<T>);

impl<'de, const MAX: usize, T: Deserialize<'de>> Visitor<'de> for BoundedListVisitor<MAX, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::custom(format_args!("list of more than {MAX} elements")));
            }
            list.push(element);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use crate::message::{Health, Status, decode_reply};

    fn health(features: usize) -> String {
        let features = vec!["\"\""; features].join(",");
        format!(
            r#"{{"status":"ok","uptime_secs":1,"hostname":"h","agent":{{"name":"n","version":"v",
               "protocol":2,"boot_id":"b","instance_id":"i","features":[{features}]}}}}"#
        )
    }

    #[test]
    fn a_list_beyond_its_limit_is_rejected() {
        assert!(decode_reply::<Health>(health(256).as_bytes()).is_ok());
        assert!(decode_reply::<Health>(health(257).as_bytes()).is_err());
    }

    #[test]
    fn an_optional_list_can_be_null() {
        let base = r#""status":"ok","uptime_secs":1,"memory_total_mb":1,"memory_used_mb":1,"disk_total_gb":1,"disk_used_gb":1"#;
        for more in ["", r#","filesystems":null"#, r#","filesystems":[]"#] {
            let status = format!("{{{base}{more}}}");
            assert!(decode_reply::<Status>(status.as_bytes()).is_ok(), "{status}");
        }
    }
}
