//! What a start request means: which runtime, and what to run, with everything checked before anything is done.

use std::io;
use std::path::Path;
use std::sync::Arc;

use api::StartRequest;
use pool::AgentKey;
use runtime::Runtime;
use settings::RuntimeName;

use crate::core::Core;
use crate::error::{OperationError, shown};
use crate::lifecycle::runtime_error;
use crate::model::{AgentRecord, AgentSpec};
use crate::runtimes::Locality;
use crate::spec;

/// What to run, and by what.
pub(crate) struct Plan {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) spec: AgentSpec,
}

impl Plan {
    pub(crate) fn differences(&self, record: &AgentRecord) -> Vec<String> {
        let mut lines = Vec::new();
        if self.runtime.name() != record.runtime {
            lines.push(spec::difference("runtime", &record.runtime, self.runtime.name()));
        }
        match &record.spec {
            Some(spec) => lines.extend(spec::differences(spec, &self.spec)),
            None => lines.push("what it runs is not known: it was found by its labels".to_owned()),
        }
        lines
    }
}

impl Core {
    /// What a request means for this agent, with everything checked that can be before anything is done.
    pub(crate) async fn plan(
        &self,
        key: &AgentKey,
        request: &StartRequest,
        prior: Option<&AgentRecord>,
    ) -> Result<Plan, OperationError> {
        if let Some(record) = prior
            && let Some(spec) = &record.spec
            && spec::says_nothing(request)
        {
            return Ok(Plan { runtime: self.runtime_of(record)?, spec: spec.clone() });
        }
        if let Some(other) = self.state().agents.keys().find(|other| spec::share_a_name(key, other)) {
            return Err(OperationError::Conflict {
                message: format!(
                    "{key} and {other} would both be called {} on a runtime",
                    key.runtime_name()
                ),
                hint: "choose a name without `--` in it".to_owned(),
                details: serde_json::Map::new(),
            });
        }
        let as_before = prior.and_then(|record| Some((record, record.spec.as_ref()?)));
        let as_before = as_before.filter(|(record, spec)| {
            let is_elsewhere = request.runtime.as_ref().is_some_and(|runtime| *runtime != record.runtime);
            !is_elsewhere && spec::says_only_how(request, spec.image.is_some())
        });
        let whole = as_before.map(|(record, spec)| spec::completed(request, &record.runtime, spec));
        let resolved = spec::resolve(whole.as_ref().unwrap_or(request), &self.settings)?;
        let runtime = match (&resolved.runtime, prior) {
            (Some(name), _) => self.runtimes.get(name),
            (None, Some(record)) if record.is_live() => self.runtimes.get(&record.runtime),
            (None, _) => self.runtimes.default().await,
        };
        let runtime = runtime.map_err(|source| OperationError::Runtime {
            key: key.clone(),
            runtime: resolved.runtime.clone().unwrap_or_default(),
            source,
        })?;
        let mut spec = resolved.spec;
        if !runtime.needs_image() && spec.workspace.is_none() {
            spec.workspace.clone_from(&request.directory);
        }
        check_for_runtime(key, runtime.as_ref(), &spec)?;
        let agent = AgentRecord::new(key.clone(), runtime.name().to_owned());
        let wanted = self.runtime_spec(runtime.as_ref(), &agent, &spec)?;
        runtime.check(&wanted).map_err(|source| runtime_error(&agent, source))?;
        Ok(Plan { runtime, spec })
    }

    /// Sees to it that what is to be mounted and was not before is there, as far as that can be told from here, before anything is
    /// stopped for it. What an engine has mounted once it can see, wherever its socket leads.
    ///
    /// # Errors
    /// [`OperationError::Invalid`], naming the first that is not.
    pub(crate) fn check_sources(
        &self,
        runtime: &dyn Runtime,
        spec: &AgentSpec,
        before: Option<&AgentSpec>,
    ) -> Result<(), OperationError> {
        let name = runtime.name();
        let mounts = |spec| spec::mounts(spec, runtime.needs_image());
        let wanted = mounts(spec)?;
        // What another host has cannot be seen from here, nor what the nodes of a cluster have.
        let is_here =
            self.runtimes.locality(name) == Locality::Local && name != RuntimeName::Kubernetes.as_str();
        if !is_here {
            return Ok(());
        }
        // What an earlier version took may be refused by now; that is not what is asked for.
        let had = before.and_then(|before| mounts(before).ok()).unwrap_or_default();
        let is_new = |source: &&str| had.iter().all(|mount| mount.source != **source);
        let mut sources = wanted.iter().map(|mount| mount.source.as_str()).filter(is_new);
        match sources.find(|source| is_missing(Path::new(source))) {
            None => Ok(()),
            Some(source) => {
                let hint = format!("make it with `mkdir -p {source}`, or write the name of a volume");
                Err(spec::invalid(format!("{source} is to be mounted and is not there"), Some(hint)))
            }
        }
    }
}

/// Whether there is certainly nothing under this path. What an engine in a virtual machine offers of its own, such as its socket, is
/// nowhere else; it is under `/run`.
fn is_missing(source: &Path) -> bool {
    let is_of_host = source.is_absolute() && !source.starts_with("/run") && !source.starts_with("/var/run");
    is_of_host && source.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn check_for_runtime(key: &AgentKey, runtime: &dyn Runtime, spec: &AgentSpec) -> Result<(), OperationError> {
    let name = runtime.name();
    if runtime.needs_image() && spec.image.is_none() {
        let hint = format!(
            "say what to run: `berthold start {} --image IMAGE`, a template with `--template`, or a plain process with \
             `--runtime process -- COMMAND`",
            shown(key)
        );
        return Err(spec::invalid(format!("no image for {key}: {name} runs agents from images"), Some(hint)));
    }
    if !runtime.needs_image() && spec.command.is_empty() {
        let hint = format!("add it after `--`: `berthold start {} --runtime {name} -- COMMAND`", shown(key));
        return Err(spec::invalid(
            format!("no command for {key}: {name} has no images to take one from"),
            Some(hint),
        ));
    }
    Ok(())
}

pub(crate) fn differs(record: &AgentRecord, differences: &[String]) -> OperationError {
    let mut details = serde_json::Map::new();
    details.insert("agent".to_owned(), record.key.to_string().into());
    details.insert("differences".to_owned(), differences.into());
    OperationError::Conflict {
        message: format!(
            "{} runs already, with another specification: {}",
            record.key,
            differences.join("; ")
        ),
        hint: "recreate it with `--replace`, or start another one under another name".to_owned(),
        details,
    }
}
