//! Characters that a terminal acts on, or shows as nothing.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// Reports whether a terminal would act on the character or show nothing for it. Two names that differ only in an
/// invisible character would look the same.
pub(crate) fn is_active(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let category = character.general_category();
    let formats = matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    formats || is_ignorable(character)
}

/// Reports whether the character has the property `Default_Ignorable_Code_Point` without the category `Format`: the
/// grapheme joiner, Hangul fillers, invisible Khmer vowels, variation selectors, and code points reserved for more.
fn is_ignorable(character: char) -> bool {
    matches!(
        character,
        '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{2065}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}'
    )
}
