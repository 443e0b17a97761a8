//! Files of guests as candidates.

use super::candidates::CandidateSet;
use super::line_client::LineClient;
use crate::cli::GuestFile;
use minions_api::VmName;
use minions_api::files::FileKind;

/// Adds the files that complete `VM:path`. Returns `None` if the directory is not listed completely in time: the common
/// beginning of some of its names would be wrong.
pub(super) fn add(
    line: &LineClient,
    set: &mut CandidateSet,
    vm: &VmName,
    path: &str,
) -> Option<()> {
    let Some(slash) = path.rfind('/').filter(|_| path.starts_with('/')) else {
        if path.is_empty() {
            set.add(format!("{vm}:/"), "");
        }
        return Some(());
    };
    let (directory, beginning) = path.split_at(slash + 1);
    let file = GuestFile { vm: vm.clone(), path: directory.as_bytes().to_vec() };
    let client = line.client()?;
    let user = line.words.value("user");
    let listed = line.within_patience(async {
        let mut entries = client.list_files(&file, user).await?;
        while let Some(entry) = entries.next().await? {
            // As shells do, hidden files only if the first character is typed.
            let is_wanted = entry.name.starts_with(beginning)
                && (beginning.starts_with('.') || !entry.name.starts_with('.'));
            // A name that is not UTF-8 cannot be typed.
            if is_wanted && entry.name_base64.is_none() && !entry.name.contains('/') {
                let end = if entry.metadata.kind == FileKind::Directory { "/" } else { "" };
                set.add(format!("{vm}:{directory}{}{end}", entry.name), "");
            }
        }
        Ok::<_, crate::failure::Failure>(())
    });
    listed?.ok()
}
