//! Kernel modules, where the kernel has them as files.

use super::console;
use rustix::io::Errno;
use rustix::system::finit_module;
use std::fs::{self, File};

/// Which to insert, one path a line, each after those that it needs. Empty lines and lines that begin
/// with `#` mean nothing. A kernel that has all built in comes without the list.
const LIST: &str = "/lib/modules/order";

/// The module that makes the host reachable; nothing needs to be listed after it.
pub(super) fn insert_all() {
    let list = fs::read_to_string(LIST).unwrap_or_default();
    for path in paths(&list) {
        match File::open(path).map(|module| finit_module(module, c"", 0)) {
            // Built in, or inserted before.
            Ok(Ok(()) | Err(Errno::EXIST)) => {}
            Ok(Err(errno)) => console(format_args!("insert {path}: {errno}")),
            Err(error) => console(format_args!("open {path}: {error}")),
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
    fn a_list_may_have_comments() {
        let list = "# vsock\n/lib/modules/a.ko\n\n  /lib/modules/b.ko \n";
        assert_eq!(paths(list).collect::<Vec<_>>(), ["/lib/modules/a.ko", "/lib/modules/b.ko"]);
    }
}
