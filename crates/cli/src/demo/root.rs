//! The files of the demo's image: this very program, and what it needs to run.
//!
//! A program that is linked dynamically needs its loader and its libraries. Those that this process has mapped are the ones
//! that it needs. They are put at the very same paths, and their directories are named in `LD_LIBRARY_PATH`, since the
//! cache in which the loader would look is left out. The same files always give the same archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::elf::{DT_SONAME, FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

/// Where the program is in the image.
pub(super) const PROGRAM: &str = "/berthold";
/// This very program. Its path may lead to a newer one by now.
pub(super) const OWN_PROGRAM: &str = "/proc/self/exe";

const PASSWD: &str = "root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n";

/// Why there are no files for an image.
#[derive(Debug, thiserror::Error)]
pub(super) enum RootError {
    /// It is a program of macOS, for example.
    #[error("this program is not one of Linux, and containers run only those")]
    NotLinux,
    /// A file of this program cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// There is not enough memory, most likely.
    #[error("the archive of the image cannot be written: {0}")]
    Archive(io::Error),
}

/// What is in the image, by its absolute path there.
pub(super) struct Root {
    entries: BTreeMap<PathBuf, Entry>,
    library_directories: BTreeSet<PathBuf>,
}

enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

impl Root {
    /// All that this very program needs.
    pub(super) fn of_this_program() -> Result<Self, RootError> {
        if !cfg!(target_os = "linux") {
            return Err(RootError::NotLinux);
        }
        let content = read(Path::new(OWN_PROGRAM))?;
        let loader = loader(&content);
        let mut root = Self { entries: BTreeMap::new(), library_directories: BTreeSet::new() };
        root.add(Path::new(PROGRAM), Entry::File { mode: 0o755, content });
        root.add(Path::new("/tmp"), Entry::Directory { mode: 0o1777 });
        root.add(Path::new("/etc/passwd"), Entry::File { mode: 0o644, content: PASSWD.into() });
        if let Some(loader) = loader {
            // Its path is often that of a symbolic link, through which this reads.
            root.add(&loader, Entry::File { mode: 0o755, content: read(&loader)? });
            let program = fs::read_link(OWN_PROGRAM).unwrap_or_default();
            let maps = read(Path::new("/proc/self/maps"))?;
            for library in mapped_code(&String::from_utf8_lossy(&maps)) {
                if library != program {
                    root.add_library(&library)?;
                }
            }
        }
        Ok(root)
    }

    fn add(&mut self, path: &Path, entry: Entry) {
        let above = path.ancestors().skip(1).filter(|above| above.parent().is_some());
        for directory in above {
            self.entries.entry(directory.to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    fn add_library(&mut self, path: &Path) -> Result<(), RootError> {
        let content = read(path)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        // The loader looks for the name that the library gives itself, and on some systems that is a link to the file.
        if let (Some(name), Some(own)) = (soname(&content), path.file_name().and_then(|name| name.to_str()))
            && name != own
            && !name.contains('/')
        {
            self.add(&directory.join(name), Entry::Link { target: own.to_owned() });
        }
        self.library_directories.insert(directory.to_owned());
        self.add(path, Entry::File { mode: 0o755, content });
        Ok(())
    }

    /// What `LD_LIBRARY_PATH` has to be in the image; none for a static program.
    pub(super) fn library_path(&self) -> Option<String> {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._+-@~".contains(letter);
        // A directory of another name cannot be written in the variable or in the change that sets it.
        let directories = self.library_directories.iter().filter_map(|directory| directory.to_str());
        let plain: Vec<&str> = directories.filter(|directory| directory.chars().all(is_plain)).collect();
        (!plain.is_empty()).then(|| plain.join(":"))
    }

    /// A tar archive of all.
    pub(super) fn archive(&self) -> Result<Vec<u8>, RootError> {
        let size: usize = self.entries.values().map(|entry| entry.content().len() + 1024).sum();
        let mut builder = tar::Builder::new(Vec::with_capacity(size));
        for (path, entry) in &self.entries {
            let inside = path.strip_prefix("/").unwrap_or(path);
            let mut header = entry.header();
            let appended = match entry {
                Entry::Link { target } => builder.append_link(&mut header, inside, target),
                _ => builder.append_data(&mut header, inside, entry.content()),
            };
            appended.map_err(RootError::Archive)?;
        }
        builder.into_inner().map_err(RootError::Archive)
    }
}

impl Entry {
    fn content(&self) -> &[u8] {
        match self {
            Self::File { content, .. } => content,
            Self::Directory { .. } | Self::Link { .. } => &[],
        }
    }

    fn header(&self) -> tar::Header {
        let (kind, mode) = match self {
            Self::Directory { mode } => (tar::EntryType::Directory, *mode),
            Self::File { mode, .. } => (tar::EntryType::Regular, *mode),
            Self::Link { .. } => (tar::EntryType::Symlink, 0o777),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(self.content().len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RootError> {
    fs::read(path).map_err(|source| RootError::Unreadable { path: path.to_owned(), source })
}

/// The files from which this process runs code (proc_pid_maps(5)).
fn mapped_code(maps: &str) -> BTreeSet<PathBuf> {
    let paths = maps.lines().filter_map(|line| {
        let is_code = line.split_whitespace().nth(1)?.contains('x');
        // Nothing before the path has a slash, and the path may have spaces.
        line.find('/').filter(|_| is_code).map(|start| PathBuf::from(&line[start..]))
    });
    paths.collect()
}

/// The path of the loader that the program wants (elf(5), `PT_INTERP`); none for a static program.
fn loader(program: &[u8]) -> Option<PathBuf> {
    let path = match FileKind::parse(program).ok()? {
        FileKind::Elf64 => interpreter::<FileHeader64<Endianness>>(program),
        FileKind::Elf32 => interpreter::<FileHeader32<Endianness>>(program),
        _ => None,
    };
    Some(PathBuf::from(std::str::from_utf8(path?).ok()?))
}

fn interpreter<Elf: FileHeader>(program: &[u8]) -> Option<&[u8]> {
    let header = Elf::parse(program).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, program).ok()?;
    segments.iter().find_map(|segment| segment.interpreter(endian, program).ok().flatten())
}

/// The name that a library gives itself (`DT_SONAME`).
fn soname(library: &[u8]) -> Option<String> {
    let name = match FileKind::parse(library).ok()? {
        FileKind::Elf64 => own_name::<FileHeader64<Endianness>>(library),
        FileKind::Elf32 => own_name::<FileHeader32<Endianness>>(library),
        _ => None,
    };
    Some(std::str::from_utf8(name?).ok()?.to_owned())
}

fn own_name<Elf: FileHeader>(library: &[u8]) -> Option<&[u8]> {
    let header = Elf::parse(library).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, library).ok()?;
    let (entries, strings) = sections.dynamic(endian, library).ok()??;
    let strings = sections.strings(endian, library, strings).ok()?;
    let entry = entries.iter().find(|entry| entry.tag(endian) == DT_SONAME)?;
    entry.string(endian, strings).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn code_is_found_in_the_map() {
        let maps = "\
55d0-55d1 r-xp 00001000 fe:00 12                         /home/a b/x
7f00-7f01 r-xp 00028000 fe:00 34                         /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 rw-p 00028000 fe:00 34                         /usr/lib/x86_64-linux-gnu/libdata.so.6
7f04-7f05 r-xp 00000000 00:00 0                          [vdso]
7f06-7f07 r-xp 00000000 00:00 0
";
        let found: Vec<_> = mapped_code(maps).into_iter().collect();
        assert_eq!(found, ["/home/a b/x", "/usr/lib/x86_64-linux-gnu/libc.so.6"].map(PathBuf::from));
    }

    #[test]
    fn what_is_no_program_has_neither_loader_nor_name() {
        for bytes in [b"".as_slice(), b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0", &[0xff; 300]] {
            assert_eq!((loader(bytes), soname(bytes)), (None, None));
        }
    }

    #[test]
    fn a_library_under_another_name_is_found_by_its_own() {
        let Some(libc) = mapped_code(&fs::read_to_string("/proc/self/maps").unwrap_or_default())
            .into_iter()
            .find(|path| path.ends_with("libc.so.6"))
        else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let renamed = directory.path().join("libc-2.99.so");
        fs::copy(libc, &renamed).unwrap();
        let mut root = Root { entries: BTreeMap::new(), library_directories: BTreeSet::new() };
        root.add_library(&renamed).unwrap();
        let link = root.entries.get(&directory.path().join("libc.so.6"));
        assert!(matches!(link, Some(Entry::Link { target }) if target == "libc-2.99.so"));
        assert_eq!(root.library_path().as_deref(), directory.path().to_str());
    }

    /// What is in the archive is all that the program needs: it runs with that as its whole world.
    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_runs_in_what_was_made() {
        let root = Root::of_this_program().unwrap();
        let archive = root.archive().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut unpacked = tar::Archive::new(archive.as_slice());
        unpacked.set_preserve_permissions(true);
        unpacked.unpack(directory.path()).unwrap();
        let mode =
            |path: &str| fs::metadata(directory.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!([mode("berthold"), mode("tmp"), mode("etc/passwd")], [0o755, 0o1777, 0o644]);
        let own = fs::read(OWN_PROGRAM).unwrap();
        assert_eq!(loader(&own).is_some(), root.library_path().is_some());
        if let Some(needed) = loader(&own) {
            assert!(directory.path().join(needed.strip_prefix("/").unwrap()).exists(), "{needed:?}");
        }
        // Changing the root takes rights that not every one who runs tests has.
        if rustix::process::geteuid().is_root() {
            let mut command = Command::new("chroot");
            command.arg(directory.path()).args([PROGRAM, "--list"]).env_clear();
            command.envs(root.library_path().map(|path| ("LD_LIBRARY_PATH", path)));
            command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("this_program_runs_in_what_was_made"));
        }
    }
}
