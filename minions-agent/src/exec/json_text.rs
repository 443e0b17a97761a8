//! Length of bytes as text in a JSON string.
//!
//! Bytes that are not UTF-8 become U+FFFD, as in [`String::from_utf8_lossy`]. A *unit* is indivisible: a
//! character, or the bytes that become one U+FFFD together.

/// Length of a unit: `len` of its bytes, and `cost` in JSON.
#[derive(Debug, Clone, Copy)]
struct TextUnit {
    len: usize,
    cost: usize,
}

fn units(bytes: &[u8]) -> impl Iterator<Item = TextUnit> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let invalid =
            TextUnit { len: chunk.invalid().len(), cost: char::REPLACEMENT_CHARACTER.len_utf8() };
        let valid = chunk.valid().chars().map(|c| TextUnit { len: c.len_utf8(), cost: cost_of(c) });
        valid.chain((invalid.len > 0).then_some(invalid))
    })
}

/// Returns the length of a character in JSON, as serde_json writes it.
fn cost_of(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

/// Returns the length of `bytes` in JSON, without the surrounding quotes.
pub(super) fn cost(bytes: &[u8]) -> usize {
    units(bytes).map(|unit| unit.cost).sum()
}

/// Returns the longest prefix that costs at most `budget`, and its cost.
pub(super) fn prefix(bytes: &[u8], budget: usize) -> (&[u8], usize) {
    let (mut len, mut spent) = (0, 0);
    for unit in units(bytes) {
        if spent + unit.cost > budget {
            break;
        }
        len += unit.len;
        spent += unit.cost;
    }
    (&bytes[..len], spent)
}

/// Returns the longest suffix that costs at most `budget`.
pub(super) fn suffix(bytes: &[u8], budget: usize) -> &[u8] {
    let (mut at, mut left) = (0, cost(bytes));
    for unit in units(bytes) {
        if left <= budget {
            break;
        }
        at += unit.len;
        left -= unit.cost;
    }
    &bytes[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn encoded_len(bytes: &[u8]) -> usize {
        serde_json::to_string(&String::from_utf8_lossy(bytes)).unwrap().len() - 2
    }

    proptest! {
        #[test]
        fn the_cost_of_bytes_is_their_encoded_length(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(cost(&bytes), encoded_len(&bytes));
        }

        #[test]
        fn the_cost_of_text_is_its_encoded_length(text in "(.|\n|\"|\\\\|\u{0}|\u{7f}){0,100}") {
            prop_assert_eq!(cost(text.as_bytes()), encoded_len(text.as_bytes()));
        }

        #[test]
        fn prefix_and_suffix_use_the_budget_and_never_exceed_it(
            bytes in vec(any::<u8>(), 0..300), budget in 0_usize..400,
        ) {
            let (head, spent) = prefix(&bytes, budget);
            prop_assert_eq!(spent, encoded_len(head));
            prop_assert!(spent <= budget && bytes.starts_with(head));
            let tail = suffix(&bytes, budget);
            prop_assert!(encoded_len(tail) <= budget && bytes.ends_with(tail));
            // Both are as long as possible: a unit costs at most 6.
            let enough = budget.saturating_sub(6).min(cost(&bytes));
            prop_assert!(spent >= enough && encoded_len(tail) >= enough);
        }
    }
}
