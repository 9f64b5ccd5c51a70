//! The image of the demo, made on the spot: this very program, and what it needs to run.
//!
//! A program that is linked dynamically needs its loader and its libraries. Those that this process has mapped are the ones
//! that it needs, and under the very same paths the same loader finds them again. No registry is asked.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::Hasher;
use std::io;
use std::path::{Path, PathBuf};

use object::read::elf::{ElfFile64, ProgramHeader};
use runtime::Runtime;
use runtime::docker::{Docker, endpoint};

/// Where the program is in the image.
pub(super) const PROGRAM: &str = "/berthold";

/// An image that the engine has.
pub(super) struct DemoImage {
    docker: Docker,
    reference: String,
    /// Whether it was there before, and is not the demo's to remove.
    was_there: bool,
}

impl DemoImage {
    /// Makes the image, or says why it cannot be made.
    pub(super) async fn make(say: &impl Fn(&str)) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("this program is not a Linux program, so it cannot run in a container".to_owned());
        }
        let docker = connect().await?;
        let failed = |error: io::Error| format!("the demo's image cannot be made: {error}");
        let files = Files::of_this_program().map_err(failed)?;
        let archive = files.archive().map_err(failed)?;
        let reference = format!("localhost/berthold-demo:{}-{}", env!("CARGO_PKG_VERSION"), digest(&archive));
        let was_there = docker.has_image(&reference).await.map_err(|error| error.to_string())?;
        if !was_there {
            let size = archive.len() / 1_000_000;
            say(&format!("making an image of {size} MB from this program; nothing is pulled"));
            let changes = [format!("CMD [\"{PROGRAM}\", \"--version\"]")];
            docker
                .import_image(&reference, &changes, archive.into())
                .await
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { docker, reference, was_there })
    }

    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    /// Takes the image away again. That it cannot be is no reason for the demo to fail.
    pub(super) async fn remove(self) {
        if !self.was_there
            && let Err(error) = self.docker.remove_image(&self.reference).await
        {
            tracing::warn!(%error, "the demo's image stays");
        }
    }
}

async fn connect() -> Result<Docker, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let candidates = endpoint::find(None, &variable, home.as_deref()).map_err(|error| error.to_string())?;
    let Some(endpoint) = candidates.first() else { return Err("no Docker socket was found".to_owned()) };
    let docker = Docker::connect("docker", endpoint).map_err(|error| error.to_string())?;
    docker.engine().await.map_err(|error| error.to_string())?;
    Ok(docker)
}

/// Not a secret, only a name that changes with the content.
fn digest(archive: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(archive);
    format!("{:08x}", hasher.finish() >> 32)
}

/// What goes into the image: paths inside, and the files on this host.
struct Files(BTreeMap<PathBuf, PathBuf>);

impl Files {
    fn of_this_program() -> io::Result<Self> {
        let program = fs::canonicalize("/proc/self/exe")?;
        let mut files = BTreeMap::from([(PathBuf::from(PROGRAM), program.clone())]);
        if let Some(loader) = loader(&fs::read(&program)?) {
            files.insert(loader.clone(), fs::canonicalize(loader)?);
            for library in mapped_libraries(&fs::read_to_string("/proc/self/maps")?) {
                if library != program {
                    files.insert(library.clone(), library);
                }
            }
        }
        Ok(Self(files))
    }

    /// A tar archive of them, with the directories above. The same files give the same archive.
    fn archive(&self) -> io::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut directories = BTreeSet::from([PathBuf::from("/tmp")]);
        for path in self.0.keys() {
            directories.extend(
                path.ancestors().skip(1).filter(|above| above.parent().is_some()).map(Path::to_owned),
            );
        }
        for directory in &directories {
            let mode = if directory == Path::new("/tmp") { 0o1777 } else { 0o755 };
            let mut header = header(tar::EntryType::Directory, mode, 0);
            builder.append_data(&mut header, inside(directory), io::empty())?;
        }
        for (path, source) in &self.0 {
            let bytes = fs::read(source)?;
            let mut header = header(tar::EntryType::Regular, 0o755, bytes.len());
            builder.append_data(&mut header, inside(path), bytes.as_slice())?;
        }
        builder.into_inner()
    }
}

fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn header(kind: tar::EntryType, mode: u32, size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(u64::try_from(size).unwrap_or(u64::MAX));
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The path of the program's loader (elf(5), PT_INTERP); none for a static program.
fn loader(program: &[u8]) -> Option<PathBuf> {
    let file = ElfFile64::<object::Endianness>::parse(program).ok()?;
    let endian = file.endian();
    let segments = file.elf_program_headers().iter();
    let interpreter =
        segments.filter_map(|segment| segment.interpreter(endian, program).ok().flatten()).next()?;
    Some(PathBuf::from(std::str::from_utf8(interpreter).ok()?))
}

/// The files that this process has mapped to run code from (proc_pid_maps(5)).
fn mapped_libraries(maps: &str) -> BTreeSet<PathBuf> {
    maps.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_code = fields.get(1).is_some_and(|rights| rights.contains('x'));
            fields.get(5).filter(|path| is_code && path.starts_with('/')).map(PathBuf::from)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_libraries_are_read_from_the_map() {
        let maps = "\
55d0-55d1 r-xp 00001000 fe:00 12 /usr/bin/x
7f00-7f01 r-xp 00028000 fe:00 34 /usr/lib/x86_64-linux-gnu/libc.so.6
7f02-7f03 rw-p 00028000 fe:00 34 /usr/lib/x86_64-linux-gnu/libdata.so.6
7f04-7f05 r-xp 00000000 00:00 0  [vdso]
7f06-7f07 r-xp 00000000 00:00 0
";
        let found = mapped_libraries(maps);
        assert_eq!(found, ["/usr/bin/x", "/usr/lib/x86_64-linux-gnu/libc.so.6"].map(PathBuf::from).into());
    }

    /// What is in the archive is all that the program needs: it runs with that as its whole world.
    #[test]
    #[cfg(target_os = "linux")]
    fn this_program_runs_in_what_was_made() {
        let files = Files::of_this_program().unwrap();
        let archive = files.archive().unwrap();
        assert!(archive == files.archive().unwrap(), "the same files give the same archive");
        let root = tempfile::tempdir().unwrap();
        tar::Archive::new(archive.as_slice()).unpack(root.path()).unwrap();
        assert!(root.path().join("berthold").exists());
        // Changing the root takes rights that not every one who runs tests has.
        if rustix::process::geteuid().is_root() {
            let output = Command::new("chroot").arg(root.path()).args([PROGRAM, "--list"]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
    }
}
