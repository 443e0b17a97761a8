//! Declared state.
//!
//! * [`files`]: declarations files. [`apply`]: `apply` and `diff`. [`list`]: `declarations`. [`config`]: `config`.
//! * [`pools`]: `pool …`.

pub(super) mod apply;
pub(super) mod config;
mod files;
pub(super) mod list;
pub(super) mod pools;

/// Returns a text as a part of a URL.
pub(super) fn path_segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    name.bytes().fold(String::new(), |mut path, byte| {
        if plain(byte) {
            path.push(char::from(byte));
        } else {
            path += &format!("%{byte:02X}");
        }
        path
    })
}
