//! The image of the demo, which an engine makes on the spot from this very program. No registry is asked.
//!
//! Its tag names its content: an image that is there already is used again, and one of another build never is. Demos that run
//! at the same time have one between them, which goes with the last: they hold a lock on the program itself, which is the
//! content of the image, an exclusive one to make or remove it and a shared one to use it. The lock ends with its process and
//! leaves nothing behind.

use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::Hasher;
use std::io;
use std::time::Duration;

use api::Code;
use bytes::Bytes;
use runtime::docker::{Docker, EngineEndpoint, Platform, endpoint};
use runtime::{EngineInfo, ErrorKind, Runtime, RuntimeError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::sleep;

use super::root::{OWN_PROGRAM, Root, RootError};
use crate::error::CliError;

/// The user who owns nothing.
const NOBODY: &str = "65534:65534";
/// How often it is looked whether another demo has made the image.
const PAUSE: Duration = Duration::from_millis(20);

/// Why the agents cannot run in containers.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImageError {
    /// The engine is not found, does not answer, or refuses.
    #[error(transparent)]
    Engine(#[from] RuntimeError),
    /// What it publishes is not reached at this host.
    #[error("the engine at {0} is on another host, where the demo's URLs would not lead to")]
    Elsewhere(EngineEndpoint),
    /// It runs programs of another kind.
    #[error("the engine at {endpoint} runs programs of {engine}, and this one is of {own}")]
    Foreign { endpoint: EngineEndpoint, engine: Platform, own: Platform },
    /// There is nothing to put into an image.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The program cannot be locked.
    #[error("the demo cannot lock its own program: {0}")]
    Lock(io::Error),
    /// The program itself is at fault.
    #[error("BUG: a part of the demo broke off: {0}")]
    Broken(#[from] JoinError),
}

impl From<ImageError> for CliError {
    fn from(error: ImageError) -> Self {
        let (code, hint) = match &error {
            ImageError::Engine(engine) => {
                let is_gone = engine.kind == ErrorKind::Unreachable;
                (if is_gone { Code::RuntimeUnreachable } else { Code::RuntimeFailed }, engine.hint.clone())
            }
            ImageError::Broken(_) => (Code::Failed, None),
            _ => (Code::Unsupported, None),
        };
        let hint = hint.unwrap_or_else(|| "`--runtime process` needs no engine".to_owned());
        Self::failed(code, error.to_string()).with_hint(hint)
    }
}

/// An image that an engine has, or can be given.
pub(super) struct DemoImage {
    docker: Docker,
    engine: EngineInfo,
    reference: String,
    archive: Bytes,
    changes: Vec<String>,
    /// This program, locked while the image is in use.
    lock: File,
    /// An import that is under way. It goes on when nobody waits for it any more, so that it can be waited for before
    /// what it made is removed.
    import: Option<JoinHandle<Result<(), RuntimeError>>>,
}

impl DemoImage {
    /// Looks for an engine at `host`, or where Docker's own command would, and puts together what it is to be given.
    pub(super) async fn plan(host: Option<&str>) -> Result<Self, ImageError> {
        let (docker, engine) = find_engine(host).await?;
        if !docker.is_local() {
            return Err(ImageError::Elsewhere(docker.endpoint().clone()));
        }
        let own = Platform::own();
        if let Some(platform) = docker.platform().await?
            && platform != own
        {
            return Err(ImageError::Foreign { endpoint: docker.endpoint().clone(), engine: platform, own });
        }
        let (archive, library_path) = spawn_blocking(|| {
            let root = Root::of_this_program()?;
            Ok::<_, RootError>((root.archive()?, root.library_path()))
        })
        .await??;
        let mut changes = vec![format!("USER {NOBODY}")];
        changes.extend(library_path.map(|path| format!("ENV LD_LIBRARY_PATH=\"{path}\"")));
        let reference = reference(&archive, &changes);
        let lock = File::open(OWN_PROGRAM).map_err(ImageError::Lock)?;
        Ok(Self { docker, engine, reference, archive: archive.into(), changes, lock, import: None })
    }

    /// The engine that has it, or will.
    pub(super) fn engine(&self) -> &EngineInfo {
        &self.engine
    }

    /// Its name with its tag.
    pub(super) fn reference(&self) -> &str {
        &self.reference
    }

    /// How large it is.
    pub(super) fn bytes(&self) -> usize {
        self.archive.len()
    }

    /// Sees to it that the engine has it, until [`Self::remove`]; tells whether it had to be made.
    pub(super) async fn make(&mut self) -> Result<bool, ImageError> {
        let mut is_new = false;
        loop {
            while !self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
                // Another demo uses it, or makes or removes it right now.
                if self.try_lock(FlockOperation::NonBlockingLockShared)? && self.is_there().await? {
                    return Ok(is_new);
                }
                // Two that wait for one another would wait for ever.
                self.try_lock(FlockOperation::NonBlockingUnlock)?;
                sleep(PAUSE).await;
            }
            if !self.is_there().await? {
                self.import().await?;
                is_new = true;
            }
            // Between the two locks another demo may have come and gone (flock(2)), and then the image is gone too.
            if self.try_lock(FlockOperation::NonBlockingLockShared)? && self.is_there().await? {
                return Ok(is_new);
            }
        }
    }

    async fn import(&mut self) -> Result<(), ImageError> {
        let (docker, reference) = (self.docker.clone(), self.reference.clone());
        let (changes, archive) = (self.changes.clone(), self.archive.clone());
        let import = tokio::spawn(async move { docker.import_image(&reference, &changes, archive).await });
        let result = self.import.insert(import).await;
        self.import = None;
        Ok(result??)
    }

    async fn is_there(&self) -> Result<bool, RuntimeError> {
        self.docker.has_image(&self.reference).await
    }

    fn try_lock(&self, operation: FlockOperation) -> Result<bool, ImageError> {
        match flock(&self.lock, operation) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(ImageError::Lock(error.into())),
        }
    }

    /// Takes it away again, unless another demo uses it.
    pub(super) async fn remove(&mut self) -> Result<(), ImageError> {
        if let Some(import) = self.import.take() {
            // Whatever came of it, nothing is left of it after this.
            drop(import.await);
        }
        if self.try_lock(FlockOperation::NonBlockingLockExclusive)? {
            self.docker.remove_image(&self.reference).await?;
        }
        Ok(())
    }
}

/// The first engine that answers.
async fn find_engine(host: Option<&str>) -> Result<(Docker, EngineInfo), RuntimeError> {
    let variable = |name: &str| std::env::var(name).ok();
    let home = std::env::home_dir();
    let mut failure = None;
    for endpoint in endpoint::find(host, &variable, home.as_deref())? {
        let docker = Docker::connect("docker", &endpoint)?;
        match docker.engine().await {
            Ok(engine) => return Ok((docker, engine)),
            // What is wrong with the best candidate is told.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| {
        RuntimeError::new(ErrorKind::Unreachable, "no socket of a Docker engine was found")
            .hint("install or start Docker, or set DOCKER_HOST")
    }))
}

fn reference(archive: &[u8], changes: &[String]) -> String {
    // No secret, only a name: whoever can give the engine another image of that name can do anything with it.
    let mut hasher = DefaultHasher::new();
    hasher.write(archive);
    changes.iter().for_each(|change| hasher.write(change.as_bytes()));
    format!("localhost/berthold-demo:{}-{:012x}", env!("CARGO_PKG_VERSION"), hasher.finish() >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_changes_with_the_content() {
        let user = vec!["USER 1".to_owned()];
        let first = reference(b"one", &user);
        assert_eq!(first, reference(b"one", &user));
        assert_ne!(first, reference(b"two", &user));
        assert_ne!(first, reference(b"one", &[]));
        let prefix = concat!("localhost/berthold-demo:", env!("CARGO_PKG_VERSION"), "-");
        assert_eq!(first.strip_prefix(prefix).map(str::len), Some(12));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_says_what_to_do() {
        let error: CliError =
            DemoImage::plan(Some("unix:///nowhere/docker.sock")).await.map(drop).unwrap_err().into();
        assert_eq!(error.code(), Code::RuntimeUnreachable);
        insta::assert_snapshot!(error, @"docker cannot be reached: there is no unix:///nowhere/docker.sock");
        assert!(error.body().hint.is_some_and(|hint| hint.contains("start it")));
    }
}
