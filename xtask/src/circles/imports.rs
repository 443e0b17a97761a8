//! Paths in a source file that may name another module of its crate.

use std::iter::Peekable;

use proc_macro2::{Delimiter, LexError, TokenStream, TokenTree, token_stream::IntoIter};

/// Path as it is written, for example `super::pool::Pool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WrittenPath {
    pub(super) segments: Vec<String>,
    /// Modules inside of the file that the path is written in.
    pub(super) inside: Vec<String>,
    pub(super) line: usize,
}

/// Returns all paths of two or more segments, and all paths in `use`, except those in tests.
pub(super) fn of(source: &str) -> Result<Vec<WrittenPath>, LexError> {
    let mut scanner = PathScanner::default();
    scanner.scan(source.parse()?);
    Ok(scanner.found)
}

#[derive(Debug, Default)]
struct PathScanner {
    inside: Vec<String>,
    found: Vec<WrittenPath>,
}

type Tokens = Peekable<IntoIter>;

impl PathScanner {
    fn scan(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => skip_test(&mut tokens),
                TokenTree::Group(group) => self.scan(group.stream()),
                TokenTree::Ident(ident) if ident == "use" => self.scan_use(&mut tokens, &[]),
                TokenTree::Ident(ident) if ident == "mod" => self.scan_module(&mut tokens),
                TokenTree::Ident(ident) if ident == "pub" => skip_visibility(&mut tokens),
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    let mut segments = vec![ident.to_string()];
                    while separator(&mut tokens) {
                        let Some(TokenTree::Ident(next)) = tokens.peek() else { break };
                        segments.push(next.to_string());
                        tokens.next();
                    }
                    if segments.len() > 1 {
                        self.add(segments, line);
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Scans the rest of `mod name { … }`; of `mod name;` there is nothing to scan.
    fn scan_module(&mut self, tokens: &mut Tokens) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        if let Some(TokenTree::Group(body)) = tokens.peek() {
            let body = body.stream();
            self.inside.push(name.to_string());
            self.scan(body);
            self.inside.pop();
            tokens.next();
        }
    }

    /// Scans the paths after `use`, or of a group within, which all start with `prefix`.
    fn scan_use(&mut self, tokens: &mut Tokens, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        // Zero: no path since the last comma. A comma may be the last token of a group.
        let mut line = 0;
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    tokens.next();
                }
                TokenTree::Ident(ident) => {
                    line = ident.span().start().line;
                    // `{self}` is the module itself.
                    if ident != "self" || segments.is_empty() {
                        segments.push(ident.to_string());
                    }
                }
                TokenTree::Group(group) => {
                    self.scan_use(&mut group.stream().into_iter().peekable(), &segments);
                    segments.clear();
                }
                TokenTree::Punct(punct) if punct.as_char() == ',' => {
                    self.add(std::mem::replace(&mut segments, prefix.to_vec()), line);
                    line = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => break,
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    line = punct.span().start().line;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.add(segments, line);
    }

    fn add(&mut self, segments: Vec<String>, line: usize) {
        if !segments.is_empty() && line > 0 {
            self.found.push(WrittenPath { segments, inside: self.inside.clone(), line });
        }
    }
}

/// Consumes `::` if it is next.
fn separator(tokens: &mut Tokens) -> bool {
    let is_colon =
        |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    // A single colon, as in `name: Type`, is followed by a token that starts another path.
    let mut ahead = tokens.clone();
    if ahead.next().is_some_and(|token| is_colon(&token))
        && ahead.next().is_some_and(|token| is_colon(&token))
    {
        *tokens = ahead;
        return true;
    }
    false
}

/// Consumes `(in path)` after `pub`: the path names the modules that see the item, and imports nothing.
fn skip_visibility(tokens: &mut Tokens) {
    let Some(TokenTree::Group(restriction)) = tokens.peek() else { return };
    let first = restriction.stream().into_iter().next();
    if first.is_some_and(|word| word.to_string() == "in") {
        tokens.next();
    }
}

/// Consumes the attribute after `#`, and the item after it if the attribute is `cfg(test)`.
fn skip_test(tokens: &mut Tokens) {
    let Some(TokenTree::Group(attribute)) = tokens.peek() else { return };
    let is_test = attribute.delimiter() == Delimiter::Bracket
        && attribute.stream().to_string().replace(' ', "") == "cfg(test)";
    tokens.next();
    if !is_test {
        return;
    }
    for token in tokens.by_ref() {
        match token {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => return,
            TokenTree::Punct(punct) if punct.as_char() == ';' => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        of(source).unwrap().iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn all_paths_of_a_use_are_found() {
        let source =
            "pub use crate::{a::{self, One as Two}, b::*, c,}; use super::d::Three; use e;";
        assert_eq!(
            paths(source),
            ["crate::a", "crate::a::One", "crate::b", "crate::c", "super::d::Three", "e"]
        );
    }

    #[test]
    fn paths_in_code_are_found_with_their_lines() {
        let source = "fn f(x: u8) -> crate::a::T {\n    g(super::b::h(x))\n}";
        assert_eq!(paths(source), ["crate::a::T", "super::b::h"]);
        assert_eq!(of(source).unwrap()[1].line, 2);
    }

    #[test]
    fn text_and_tests_are_ignored() {
        let source = "/// See [`crate::a`].\nconst T: &str = \"crate::b\"; // crate::c\n\
                      #[cfg(test)]\nmod tests { use crate::d; }\n#[cfg(test)]\nuse crate::e;\nuse crate::f;";
        assert_eq!(paths(source), ["crate::f"]);
    }

    #[test]
    fn the_path_of_a_visibility_is_not_an_import() {
        let source =
            "pub(in crate::a) struct S(pub(in super::b) crate::c::T, pub (crate::d::U, u8));";
        assert_eq!(paths(source), ["crate::c::T", "crate::d::U"]);
    }

    #[test]
    fn a_module_inside_of_the_file_is_named() {
        let found = of("mod inner { use super::super::a; }\nuse super::b;").unwrap();
        assert_eq!(found[0].inside, ["inner"]);
        assert!(found[1].inside.is_empty());
    }
}
