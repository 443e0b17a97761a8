//! Inserts kernel modules, for kernels whose drivers are not built in.

use super::console::console;
use rustix::io::Errno;
use rustix::system::finit_module;
use std::fs::{self, File};

/// File that lists the modules to insert: one path per line, each module after its dependencies. Empty lines and lines
/// that begin with `#` are ignored. A guest whose kernel has all drivers built in needs no such file.
const LIST: &str = "/lib/modules/order";

/// Inserts all listed modules, including the VSOCK driver that makes the agent reachable. Failures are written to the
/// console.
pub(super) fn insert_all() {
    let list = fs::read_to_string(LIST).unwrap_or_default();
    for path in paths(&list) {
        match File::open(path).map(|module| finit_module(module, c"", 0)) {
            // EEXIST: the module is built in, or was inserted before.
            Ok(Ok(()) | Err(Errno::EXIST)) => {}
            Ok(Err(errno)) => console(format_args!("cannot insert {path}: {errno}")),
            Err(error) => console(format_args!("cannot open {path}: {error}")),
        }
    }
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_in_the_list_are_ignored() {
        let list = "# vsock\n/lib/modules/a.ko\n\n  /lib/modules/b.ko \n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/modules/a.ko", "/lib/modules/b.ko"]);
    }
}
