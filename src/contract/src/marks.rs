use std::path::Path;

use crate::{Paths, WriteError, write_atomically};

/// Starts a pass of the certs program where a path unit waits for the mark: what is served now may want certificates.
pub fn want_certificates(paths: &Paths) -> Result<(), WriteError> {
    let mark = paths.certs_dirty_file();
    if mark.parent().is_some_and(Path::is_dir) {
        write_atomically(&mark, b"", 0o644)?;
    }
    Ok(())
}
