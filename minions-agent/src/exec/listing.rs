//! A list of execs that fits one frame, however many there are and whatever their arguments are.

use minions_proto::message::{ExecInfo, ExecListed};

/// Bytes of JSON for all of them; a frame has 1 MiB.
const MAX_LEN: usize = 1000 * 1024;

/// Characters of a command that stay where there is no room for it.
const SHORT: usize = 32;

/// Puts them into a list. Where all of them in full are too long, those that are longer than their share
/// lose their arguments, and their command its end.
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

/// With the comma behind it.
fn len(info: &ExecInfo) -> usize {
    serde_json::to_vec(info).map_or(0, |json| json.len() + 1)
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
        // 512 that something runs on of, 256 that ended, 64 that run.
        let args = vec!["\u{1}".repeat(300); 100];
        let list = listed(many(832, &"\u{1}".repeat(300), &args));
        assert_eq!(list.execs.len(), 832);
        encode_reply(&list).unwrap();
    }

    #[test]
    fn a_short_list_is_whole() {
        let args = vec!["x".repeat(200); 64];
        let list = listed(many(3, "program", &args));
        assert!(list.execs.iter().all(|info| info.args == args && info.command == "program"));
    }
}
