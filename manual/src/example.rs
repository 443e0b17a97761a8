//! Commands in the lines of examples.

/// Returns the words of each command in a shell's line that runs `program`, without redirections. Variables are not
/// expanded.
#[must_use]
pub fn invocations(line: &str, program: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut is_redirected = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '|' | ';' | '&' | '(' | ')' | '<' | '>') => {
                if let Some(word) = word.take()
                    && !std::mem::take(&mut is_redirected)
                    && let Some(words) = commands.last_mut()
                {
                    words.push(word);
                }
                match character {
                    ' ' => {}
                    '<' | '>' => is_redirected = true,
                    _ => {
                        commands.push(Vec::new());
                        is_redirected = false;
                    }
                }
            }
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), _) if open == character => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if let Some(word) = word.filter(|_| !is_redirected)
        && let Some(words) = commands.last_mut()
    {
        words.push(word);
    }
    commands.retain(|words| words.first().is_some_and(|first| first == program));
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_of_a_line_are_found() {
        for (line, commands) in [
            ("m exec -i 'web 1' cat", &["m exec -i [web 1] cat"][..]),
            ("tar c . | m exec -i x tar x", &["m exec -i x tar x"]),
            ("m a && m b \"c d\" > f", &["m a", "m b [c d]"]),
            ("source <(m completion bash)", &["m completion bash"]),
            (r"id=$(m -o json x | jq -r .id)", &["m -o json x"]),
            ("other m", &[]),
        ] {
            let shown = |words: Vec<String>| {
                let word = |word: &String| {
                    if word.contains(' ') { format!("[{word}]") } else { word.clone() }
                };
                words.iter().map(word).collect::<Vec<_>>().join(" ")
            };
            let found: Vec<_> = invocations(line, "m").into_iter().map(shown).collect();
            assert_eq!(found, commands, "{line}");
        }
    }
}
