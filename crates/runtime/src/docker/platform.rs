//! What kind of programs an engine runs.

use std::fmt;

use super::Docker;
use super::limits::GREETING;
use crate::RuntimeError;

/// An operating system and a processor, in the engines' own words: `linux/amd64`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// The operating system.
    pub os: String,
    /// The processor.
    pub architecture: String,
}

impl Platform {
    /// The platform for which this program was made.
    pub fn own() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        let os = if std::env::consts::OS == "macos" { "darwin" } else { std::env::consts::OS };
        Self { os: os.to_owned(), architecture: architecture.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl Docker {
    /// What kind of programs the engine runs; none if it does not say.
    ///
    /// # Errors
    /// If the engine could not be asked.
    pub async fn platform(&self) -> Result<Option<Platform>, RuntimeError> {
        let asking = self.asking("say what it runs on");
        let version = asking.within(GREETING, self.client.version()).await?;
        Ok(version.os.zip(version.arch).map(|(os, architecture)| Platform { os, architecture }))
    }
}
