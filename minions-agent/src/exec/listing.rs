//! Shortens the list of execs so that it always fits one frame.

use minions_proto::message::{ExecInfo, ExecListed};

/// Maximum length of all entries together as JSON, in bytes. The other 24 KiB of a frame are for the rest of the reply.
const MAX_LEN: usize = 1000 * 1024;

/// Number of characters that are kept of a shortened command.
const SHORT: usize = 32;

/// Returns the reply that lists `execs`. If the entries together exceed [`MAX_LEN`], each entry that is longer than an
/// equal share of it loses its arguments; an entry that is then still longer also loses its user and the end of its
/// command.
pub(super) fn listed(mut execs: Vec<ExecInfo>) -> ExecListed {
    let lens: Vec<_> = execs.iter().map(len).collect();
    if lens.iter().sum::<usize>() > MAX_LEN {
        let share = MAX_LEN / execs.len();
        for (info, _) in execs.iter_mut().zip(lens).filter(|(_, len)| *len > share) {
            info.args = vec!["…".to_owned()];
            if len(info) > share {
                info.command = info.command.chars().take(SHORT).chain(['…']).collect();
                info.user = None;
            }
        }
    }
    ExecListed { execs }
}

/// Returns the length of an entry as JSON, including the comma after it.
fn len(info: &ExecInfo) -> usize {
    minions_proto::json::to_vec(info).map_or(0, |json| json.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::object::Exec;
    use minions_proto::message::{ExecStart, encode_reply};

    fn many(count: usize, command: &str, args: &[String]) -> Vec<ExecInfo> {
        let (command, args) = (command.to_owned(), args.to_vec());
        let start =
            ExecStart { command, args, user: Some("\u{1}".repeat(300)), ..ExecStart::default() };
        let id = |at| format!("{at:064}").parse().unwrap();
        (0..count).map(|at| Exec::new(id(at), u32::MAX, &start).info()).collect()
    }

    #[test]
    fn the_longest_list_fits_a_frame() {
        // The most execs that an agent keeps: 512 with leftover processes, 256 ended, 64 running.
        let args = vec!["\u{1}".repeat(300); 100];
        let list = listed(many(832, &"\u{1}".repeat(300), &args));
        assert_eq!(list.execs.len(), 832);
        encode_reply(&list).unwrap();
    }

    #[test]
    fn a_short_list_is_complete() {
        let args = vec!["x".repeat(200); 64];
        let list = listed(many(3, "program", &args));
        assert!(list.execs.iter().all(|info| info.args == args && info.command == "program"));
    }
}
