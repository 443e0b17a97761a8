//! A real vim for the guest: the hardest test of a terminal. It is the guest's only program with shared
//! libraries.

use std::{fs, path::Path, process::Command};

use anyhow::Context;

use crate::command;

/// Path at which Debian's vim-tiny installs its program.
const VIM: &str = "/usr/bin/vim.tiny";

/// Reads the program and its libraries; returns them with their paths in the guest, without the leading slash.
pub(crate) fn files() -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let read = |path: &str| fs::read(path).with_context(|| format!("cannot read {path}"));
    let mut files = vec![("usr/bin/vim".to_owned(), read(VIM)?)];
    for library in libraries(&command::run(Command::new("ldd").arg(VIM))?) {
        files.push((library.trim_start_matches('/').to_owned(), read(&library)?));
    }
    Ok(files)
}

/// Parses the paths in the output of ldd(1): `libm.so.6 => /lib/libm.so.6 (0x…)`, `/lib64/ld.so (0x…)`.
fn libraries(ldd_output: &str) -> Vec<String> {
    let paths = ldd_output.lines().filter_map(|line| {
        line.split_whitespace().find(|word| Path::new(word).is_absolute()).map(str::to_owned)
    });
    paths.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_with_a_path_are_listed_but_not_the_vdso() {
        let ldd_output = "\tlinux-vdso.so.1 (0x00007f)\n\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f)\n\t/lib64/ld.so.2 (0x00007f)\n";
        assert_eq!(libraries(ldd_output), ["/lib/x/libm.so.6", "/lib64/ld.so.2"]);
    }
}
