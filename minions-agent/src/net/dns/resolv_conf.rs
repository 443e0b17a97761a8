//! resolv.conf(5).

use minions_proto::message::DnsPlan;
use std::fmt::Write;

/// What a reply has room for.
const MAX_LISTED: usize = 256;

pub(super) fn text(plan: &DnsPlan) -> String {
    let mut text = String::new();
    if !plan.search.is_empty() {
        // Writing to a String can't fail.
        let _ = writeln!(text, "search {}", plan.search.join(" "));
    }
    for server in &plan.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// Servers and search domains; of several `search` lines the last counts.
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
    fn what_is_written_is_read() {
        let plan = DnsPlan {
            servers: vec!["1.1.1.1".parse().unwrap(), "2001:db8::53".parse().unwrap()],
            search: vec!["example.org".into(), "a.example".into()],
        };
        let read = parse(&text(&plan));
        assert_eq!(read.0, ["1.1.1.1", "2001:db8::53"]);
        assert_eq!(read.1, plan.search);
    }

    #[test]
    fn comments_and_options_are_neither() {
        let read = parse(
            "# nameserver 6.6.6.6\noptions edns0\nnameserver\t9.9.9.9 # x\ndomain a\nsearch b c\n",
        );
        assert_eq!(read, (vec!["9.9.9.9".to_owned()], vec!["b".to_owned(), "c".to_owned()]));
    }
}
