//! Parser and formatter of resolv.conf(5).

use super::resolver::ResolverSettings;
use std::fmt::Write;

/// Maximum number of name servers, and of search domains, in a reply: a limit of the protocol.
const MAX_LISTED: usize = 256;

/// Maximum total length of the lines that are kept from another program's file, in bytes.
const MAX_KEPT: usize = 4096;

/// Returns the content of the file for this resolver.
pub(super) fn text(resolver: &ResolverSettings) -> String {
    let mut text = String::new();
    if !resolver.search.is_empty() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "search {}", resolver.search.join(" "));
    }
    for server in &resolver.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    for line in &resolver.kept {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// Returns the lines with other settings than servers and search domains, in their order. Comments are dropped, because
/// they describe the old file.
pub(super) fn kept(text: &str) -> Vec<String> {
    let is_kept = |line: &&str| {
        let keyword = line.split_ascii_whitespace().next().unwrap_or_default();
        !keyword.is_empty()
            && !keyword.starts_with(['#', ';'])
            && !["nameserver", "search", "domain"].contains(&keyword)
    };
    let mut room = MAX_KEPT;
    let lines = text.lines().filter(is_kept).map(str::trim_end);
    let lines = lines.take_while(|line| match room.checked_sub(line.len() + 1) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    lines.map(str::to_owned).collect()
}

/// Returns the words of all `options` lines in `kept`.
pub(super) fn options(kept: &[String]) -> Vec<&str> {
    let lines = kept.iter().filter_map(|line| line.trim_start().strip_prefix("options"));
    lines.flat_map(str::split_ascii_whitespace).collect()
}

/// Returns servers and search domains. If there are several `search` and `domain` lines, the last one is valid.
pub(super) fn parse(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => servers.extend(words.next()),
            Some("search" | "domain") => search = words.take(MAX_LISTED).collect(),
            _ => {}
        }
    }
    servers.truncate(MAX_LISTED);
    (servers, search)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_settings_are_read_back() {
        let resolver = ResolverSettings {
            servers: ["1.1.1.1", "2001:db8::53", "fe80::1%eth0"]
                .map(|text| text.parse().unwrap())
                .into(),
            search: vec!["example.org".into(), "a.example".into()],
            kept: vec!["options edns0".into(), "sortlist 10.0.0.0/8".into()],
        };
        let text = text(&resolver);
        let (servers, search) = parse(&text);
        assert_eq!(servers, ["1.1.1.1", "2001:db8::53", "fe80::1%eth0"]);
        assert_eq!((search, kept(&text)), (resolver.search, resolver.kept));
    }

    #[test]
    fn all_settings_except_servers_and_domains_are_kept() {
        let text = "# by hand\noptions timeout:1 attempts:2\n\n; old\ndomain a\nsearch b\n\
                    nameserver 9.9.9.9\nsortlist 10.0.0.0/8 \n  options rotate\nlookup file bind\n";
        let lines = kept(text);
        let expected = [
            "options timeout:1 attempts:2",
            "sortlist 10.0.0.0/8",
            "  options rotate",
            "lookup file bind",
        ];
        assert_eq!(lines, expected);
        assert_eq!(options(&lines), ["timeout:1", "attempts:2", "rotate"]);
        assert!(kept(&"options x\n".repeat(10_000)).concat().len() <= MAX_KEPT);
    }

    #[test]
    fn comments_and_options_are_not_read_as_servers_or_domains() {
        let read = parse(
            "# nameserver 6.6.6.6\noptions edns0\nnameserver\t9.9.9.9 # x\ndomain a\nsearch b c\n",
        );
        assert_eq!(read, (vec!["9.9.9.9".to_owned()], vec!["b".to_owned(), "c".to_owned()]));
    }
}
