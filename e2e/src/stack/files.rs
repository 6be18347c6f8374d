//! Small file helpers: atomic writes, secrets, random names.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::error::{AtPath, StackError};

/// Makes a folder and its parents.
pub(crate) fn make_dir(path: &Path) -> Result<(), StackError> {
    fs::create_dir_all(path).at(path)
}

/// Removes a folder with all it holds; it may be absent.
pub(crate) fn remove_dir(path: &Path) -> Result<(), StackError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at(path),
    }
}

/// Removes a file; it may be absent.
pub(crate) fn remove_file(path: &Path) -> Result<(), StackError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at(path),
    }
}

/// Writes a file so that a reader, or a process killed in between, sees the old or the new text and nothing else.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), StackError> {
    write_mode(path, text, 0o644)
}

/// As [`write`], readable by the owner only.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), StackError> {
    write_mode(path, text, 0o600)
}

/// As [`write`], executable.
pub(crate) fn write_script(path: &Path, text: &str) -> Result<(), StackError> {
    write_mode(path, text, 0o755)
}

fn write_mode(path: &Path, text: &str, mode: u32) -> Result<(), StackError> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    remove_file(temporary)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(temporary).at(temporary)?;
    file.write_all(text.as_bytes()).at(temporary)?;
    drop(file);
    fs::rename(temporary, path).at(path)
}

/// Reads a text file.
pub(crate) fn read(path: &Path) -> Result<String, StackError> {
    fs::read_to_string(path).at(path)
}

/// Reads a text file that may be absent.
pub(crate) fn read_optional(path: &Path) -> Result<Option<String>, StackError> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.at(path).map(Some),
    }
}

/// Reads a password file, without the line end that editors leave.
pub(crate) fn read_secret(path: &Path) -> Result<SecretString, StackError> {
    read(path).map(|text| SecretString::from(text.trim_end_matches(['\r', '\n'])))
}

/// `bytes` random bytes as hexadecimal text.
pub(crate) fn random_hex(bytes: usize) -> Result<String, StackError> {
    let path = Path::new("/dev/urandom");
    let mut buffer = vec![0u8; bytes];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut buffer)).at(path)?;
    Ok(hex(&buffer))
}

/// Bytes as lower-case hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The last `lines` lines of a log, indented, for an error message; empty when there is no log.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().flat_map(|line| ["\n    ", line]).collect()
}
