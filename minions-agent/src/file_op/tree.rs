//! Operations `tar_out` and `tar_in`: a tree as a tar stream.

use super::failure::{FileError, failed, unresolved};
use super::file_input::FileInput;
use super::metadata;
use super::operation_output::OperationOutput;
use minions_proto::file_stream::FileHeader;
use minions_proto::message::{PackTree, UnpackTree};
use minions_tree::XattrChoice;
use minions_tree::files::TreeRoot;
use minions_tree::pack::{PackOptions, member_name, pack_tree};
use minions_tree::unpack::{CreatedNames, DeviceChoice, TarReader, UnpackOptions, unpack_tree};
use minions_tree::walk::open_as_path;
use rustix::fs::fstat;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Serves `tar_out`.
pub(super) fn pack(op: &PackTree, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let root = open_as_path(&path, false)?;
    let metadata = metadata::of_file(&root).map_err(failed(&path, "stat"))?;
    output.header(&metadata.into())?;
    let options = PackOptions { xattrs: xattrs(op.xattrs), devices: true, mtime: None };
    pack_tree(&root, &path, member_name(&path), options, output)
}

fn xattrs(are_wanted: bool) -> XattrChoice {
    if are_wanted { XattrChoice::All } else { XattrChoice::None }
}

/// Serves `tar_in`.
pub(super) fn unpack(op: &UnpackTree, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let opened = TreeRoot::open(Path::new(OsStr::from_bytes(&path)), op.parents);
    let (root, is_new) = opened.map_err(unresolved(&path))?;
    let input = FileInput::standard();
    let is_cut = input.cut_flag();
    let cut_or = |error: FileError| match is_cut.get() {
        true => FileError::refusal(Errno::CANCELED, &path, "input", "the input was cut"),
        false => error,
    };
    let options = UnpackOptions {
        times: true,
        owners: op.owners,
        set_id: op.set_id,
        xattrs: xattrs(op.xattrs),
        devices: DeviceChoice::Refuse,
        // The umask of the agent's parent means nothing in the guest.
        mask: 0,
    };
    let mut reader = TarReader::new(input);
    let names = CreatedNames::Members { is_new };
    let mut warn = |error: &FileError| output.warn(error);
    let count =
        unpack_tree(&root, &path, names, options, &mut reader, &mut warn).map_err(cut_or)?;
    let rest = reader.into_inner().skip_to_end();
    rest.map_err(|error| {
        cut_or(FileError::refusal(Errno::BADMSG, &path, "tar", &error.to_string()))
    })?;
    let stat = fstat(&root).map_err(failed(&path, "stat"))?;
    output.header(&FileHeader { count: Some(count), ..metadata::of_stat(&stat).into() })
}
