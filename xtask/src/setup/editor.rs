//! A real vim for the guest: the hardest test of a terminal. The only program in there with
//! libraries.

use std::{fs, path::Path, process::Command};

use anyhow::Context;

use crate::command;

/// Where Debian's vim-tiny puts it.
const VIM: &str = "/usr/bin/vim.tiny";

/// The program and its libraries, by their paths in the guest, without the leading slash.
pub(crate) fn files() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let read = |path: &str| fs::read(path).with_context(|| format!("cannot read {path}"));
    let mut files = vec![("usr/bin/vim".to_owned(), read(VIM)?)];
    for library in libraries(&command::run(Command::new("ldd").arg(VIM))?) {
        files.push((library.trim_start_matches('/').to_owned(), read(&library)?));
    }
    Ok(files)
}

/// The paths in what ldd(1) says: `libm.so.6 => /lib/libm.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn libraries(said: &str) -> Vec<String> {
    let paths = said.lines().filter_map(|line| {
        line.split_whitespace().find(|word| Path::new(word).is_absolute()).map(str::to_owned)
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_a_path_and_the_kernels_own_is_none() {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(libraries(said), ["/lib/x/libm.so.6", "/lib64/ld.so.2"]);
    }
}
