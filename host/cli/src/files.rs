//! Reading files that a person names, up to a limit: a device or a wrong file must not fill memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::failure::{Exit, Failure};

/// The whole of `path`, which may have at most `bytes_max` bytes; `doing` is for the error, such as
/// `read the module`.
///
/// # Errors
/// When it cannot be read, and exit code 2 when it is longer.
pub(crate) fn read(doing: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::file(doing, path, &error))?;
    if bytes.len() as u64 > bytes_max {
        let message = format!(
            "cannot {doing} {}: it has more than {bytes_max} bytes",
            path.display()
        );
        return Err(Failure::new(
            Exit::Usage,
            "file_size",
            message,
            "see the verb's --help for the limits",
        ));
    }
    Ok(bytes)
}

/// As [`read`], for UTF-8.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_text(doing: &str, path: &Path, bytes_max: u64) -> Result<String, Failure> {
    String::from_utf8(read(doing, path, bytes_max)?).map_err(|_| {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        Failure::file(doing, path, &error)
    })
}
