//! Manual pages in the format of man(7), from the grammar of a command line and written sections.
//!
//! # Layout
//!
//! - [`page`]: a page, section by section. The options are rendered by clap_mangen.
//! - [`help`]: the parts of a command's help that have sections of their own in a page: examples, exit status, notes.
//! - [`example`]: commands in examples, so that tests can parse them.
//! - [`files`]: files of a directory of pages.

pub mod example;
pub mod files;
pub mod help;
pub mod page;

pub use page::{ManualPage, PageBlock, sentence};
