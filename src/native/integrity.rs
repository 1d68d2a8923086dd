//! Checks that a native part is complete before any of it runs. A truncated library would end the process
//! with SIGBUS, without an explanation.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{FFMPEG, NativeError, ONNXRUNTIME};

/// Files that `scripts/fetch_native.py` unpacks, by package and version, machine, and file name.
const PINS: &str = include_str!("../../scripts/native_pins.json");

type Pins = BTreeMap<String, BTreeMap<String, BTreeMap<String, Pin>>>;

#[derive(Debug, Clone, Deserialize)]
struct Pin {
    bytes: u64,
    sha256: String,
}

/// Checks an ONNX Runtime library: against its pin if `make native` installed it, otherwise only that it is a
/// complete ELF file for this machine.
///
/// # Errors
/// [`NativeError::Damaged`].
pub fn verify_onnxruntime(library: &Path) -> Result<(), NativeError> {
    verify(ONNXRUNTIME, library, false)
}

/// Checks the libraries that ONNX Runtime loads for CUDA, like [`verify_onnxruntime`].
///
/// # Errors
/// [`NativeError::Damaged`].
pub fn verify_cuda_providers(library: &Path) -> Result<(), NativeError> {
    let folder = library.parent().unwrap_or(Path::new("."));
    let providers = super::cuda::PROVIDERS.iter().map(|name| folder.join(name));
    providers.filter(|path| path.is_file()).try_for_each(|path| verify(ONNXRUNTIME, &path, false))
}

/// Checks an ffmpeg executable, like [`verify_onnxruntime`]. The user may provide a script instead.
///
/// # Errors
/// [`NativeError::Damaged`].
pub fn verify_ffmpeg(executable: &Path) -> Result<(), NativeError> {
    verify(FFMPEG, executable, true)
}

fn verify(part: &'static str, path: &Path, may_be_script: bool) -> Result<(), NativeError> {
    let damaged = |reason: String| NativeError::Damaged { part, path: path.display().to_string(), reason };
    let unreadable = |error: std::io::Error| damaged(format!("cannot read it: {error}"));
    let not_a_file = || damaged("it is not a regular file".to_owned());
    // Before it is opened: a named pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(not_a_file());
    }
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(not_a_file());
    }
    let bytes = found.len();
    if let Some(pin) = pin_of(path) {
        if bytes != pin.bytes {
            return Err(damaged(format!("expected {} bytes, got {bytes}", pin.bytes)));
        }
        let found = sha256(&mut file).map_err(unreadable)?;
        if found != pin.sha256 {
            return Err(damaged(format!("expected SHA-256 {}, got {found}", pin.sha256)));
        }
        return Ok(());
    }
    let mut start = [0; 2];
    if may_be_script && file.read_exact_at(&mut start, 0).is_ok() && &start == b"#!" {
        return Ok(());
    }
    whole_elf(&file, bytes).map_err(damaged)
}

/// The pin of a file that `make native` installed, if it is one.
fn pin_of(path: &Path) -> Option<Pin> {
    let package = installed_version(path)?;
    let pins: Pins = serde_json::from_str(PINS).ok()?;
    pins.get(&package)?.get(ARCH)?.get(path.file_name()?.to_str()?).cloned()
}

/// Package and version of a part, such as `onnxruntime 1.32.0`, if `make native` installed it.
#[must_use]
pub fn installed_version(part: &Path) -> Option<String> {
    let text = std::fs::read_to_string(part.parent()?.join("VERSION")).ok()?;
    Some(text.trim().chars().filter(|c| !c.is_control()).take(100).collect())
        .filter(|s: &String| !s.is_empty())
}

fn sha256(file: &mut File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Type of a program header whose segment is mapped from the file.
const PT_LOAD: u32 = 1;

/// Checks that a file is ELF for this machine and long enough for everything that the loader maps from it.
fn whole_elf(file: &File, bytes: u64) -> Result<(), String> {
    let cut = || format!("it is cut off: {bytes} bytes are too few");
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).map_err(|_| cut())?;
    if &head[..4] != b"\x7fELF" {
        return Err("it is not an ELF file".to_owned());
    }
    // Class 64-bit, data little-endian: the only kind that Triptych supports.
    if head[4..6] != [2, 1] {
        return Err("it is not a 64-bit little-endian ELF file".to_owned());
    }
    let machine = u16_at(&head, 18);
    let wanted = match ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => machine,
    };
    if machine != wanted {
        return Err(format!("expected a build for {ARCH}, got ELF machine {machine}"));
    }
    let (table, sections) = (u64_at(&head, 32), u64_at(&head, 40));
    let (entry_bytes, entries) = (u16_at(&head, 54), u16_at(&head, 56));
    let sections_end = sections.checked_add(u64::from(u16_at(&head, 58)) * u64::from(u16_at(&head, 60)));
    if sections_end.is_none_or(|end| end > bytes) || entry_bytes < 56 {
        return Err(cut());
    }
    for entry in 0..u64::from(entries) {
        let mut header = [0; 56];
        let at = table.checked_add(entry * u64::from(entry_bytes)).ok_or_else(cut)?;
        file.read_exact_at(&mut header, at).map_err(|_| cut())?;
        let end = u64_at(&header, 8).checked_add(u64_at(&header, 32));
        if u32_at(&header, 0) == PT_LOAD && end.is_none_or(|end| end > bytes) {
            return Err(cut());
        }
    }
    Ok(())
}

fn part_of<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(part_of(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(part_of(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(part_of(bytes, at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(path: &Path) -> String {
        verify_onnxruntime(path).map_or_else(|error| error.to_string(), |()| "whole".to_owned())
    }

    #[test]
    fn a_library_that_is_cut_anywhere_is_refused() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libonnxruntime.so.1.32.0");
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(reason(&path), "whole");
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for part in [0.9999, 0.9, 0.5, 0.01, 0.00001, 0.0] {
            file.set_len((whole.len() as f64 * part) as u64).unwrap();
            let said = reason(&path);
            assert!(said.contains("cut off") && said.contains(&path.display().to_string()), "{part}: {said}");
        }
        let mut foreign = whole[..4096].to_vec();
        foreign[18] ^= 0x55;
        std::fs::write(&path, &foreign).unwrap();
        assert!(reason(&path).contains("expected a build for"));
        std::fs::write(&path, [b'x'; 200]).unwrap();
        assert!(reason(&path).contains("not an ELF file"));
    }

    #[test]
    fn what_was_unpacked_must_be_what_was_pinned() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("VERSION"), "onnxruntime 1.32.0\n").unwrap();
        let path = dir.path().join("libonnxruntime.so.1.32.0");
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        let pin = pin_of(&path).unwrap();
        assert!(reason(&path).contains(&format!("expected {} bytes", pin.bytes)), "{}", reason(&path));
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(pin.bytes).unwrap();
        let said = reason(&path);
        assert!(said.contains(&pin.sha256) && said.contains("make native"), "{said}");
    }

    #[test]
    fn scripts_may_stand_in_for_ffmpeg_and_for_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ffmpeg");
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert!(verify_ffmpeg(&path).is_ok() && verify_onnxruntime(&path).is_err());
    }

    #[test]
    fn nothing_waits_for_a_named_pipe() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ffmpeg");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR | Mode::XUSR).unwrap();
        let said = verify_ffmpeg(&path).unwrap_err().to_string();
        assert!(said.contains("not a regular file"), "{said}");
        assert!(verify_ffmpeg(dir.path()).is_err());
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let magic = b"\x7fELF\x02\x01";
            let len = bytes.len().min(magic.len());
            bytes[..len].copy_from_slice(&magic[..len]);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let _ = whole_elf(&file, bytes.len() as u64);
        }
    }
}
