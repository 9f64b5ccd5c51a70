//! Images: looking whether one is there, pulling it, and making one from an archive.

use std::time::Instant;

use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions};
use bytes::Bytes;
use futures_util::StreamExt;

use super::Docker;
use super::limits::{ANSWER, SILENCE, WORK};
use super::pull::{PullProgress, is_reference, repository_and_tag};
use crate::{ErrorKind, Progress, RuntimeError};

impl Docker {
    /// Whether the engine has the image `reference`.
    ///
    /// # Errors
    /// If the engine could not be asked.
    pub async fn has_image(&self, reference: &str) -> Result<bool, RuntimeError> {
        if !is_reference(reference) {
            return Ok(false);
        }
        let asking = self.asking(format!("look for the image `{reference}`"));
        match asking.within(ANSWER, self.client.inspect_image(reference)).await {
            Ok(_image) => Ok(true),
            // What the engine does not take for a name, it has not: a pull says why.
            Err(error) if matches!(error.kind, ErrorKind::Image | ErrorKind::Invalid) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the image `reference` from a tar archive of its files, with `changes` such as `CMD ["sh"]` applied.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the engine does not like one of them.
    pub async fn import_image(
        &self,
        reference: &str,
        changes: &[String],
        tar: Bytes,
    ) -> Result<(), RuntimeError> {
        let (repository, tag) = repository_and_tag(reference);
        let options = CreateImageOptions {
            from_src: Some("-".to_owned()),
            repo: Some(repository.to_owned()),
            tag: Some(tag.to_owned()),
            changes: changes.to_vec(),
            ..CreateImageOptions::default()
        };
        let asking = self.asking(format!("make the image `{reference}`"));
        let mut answer = self.client.create_image(Some(options), Some(bollard::body_full(tar)), None).boxed();
        let finished = async {
            while let Some(info) = answer.next().await {
                info?;
            }
            Ok(())
        };
        asking.within(WORK, finished).await
    }

    /// Takes the name `reference` away, and the image with it if it has no other. What is not there is gone already.
    ///
    /// # Errors
    /// If a container still uses it, or the engine could not be asked.
    pub async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        let asking = self.asking(format!("remove the image `{reference}`"));
        let removed = self.client.remove_image(reference, None::<RemoveImageOptions>, None);
        match asking.within(WORK, removed).await {
            Err(error) if error.kind != ErrorKind::Image => Err(error),
            _ => Ok(()),
        }
    }

    /// Pulls the image `reference`.
    pub(super) async fn pull(&self, reference: &str, progress: &dyn Progress) -> Result<(), RuntimeError> {
        let failed = |mut error: RuntimeError| {
            if error.kind == ErrorKind::Unreachable {
                return error;
            }
            error.kind = ErrorKind::Image;
            error.hint(self.engine.pull_remedy(reference))
        };
        let asking = self.asking(format!("pull `{reference}`"));
        if !is_reference(reference) {
            return Err(failed(asking.refused(ErrorKind::Image, "that is not the name of an image")));
        }
        let (image, tag) = repository_and_tag(reference);
        let options = CreateImageOptions {
            from_image: Some(image.to_owned()),
            tag: Some(tag.to_owned()).filter(|tag| !tag.is_empty()),
            ..CreateImageOptions::default()
        };
        let mut answer = self.client.create_image(Some(options), None, None).boxed();
        let mut pulled = PullProgress::new(reference, progress);
        while let Some(info) =
            asking.within(SILENCE, async { answer.next().await.transpose() }).await.map_err(failed)?
        {
            pulled.take(&info, Instant::now());
        }
        // Some failures end the answer without a word that would be recognised.
        if self.has_image(reference).await? {
            return Ok(());
        }
        Err(failed(asking.refused(ErrorKind::Image, "it is still not there")))
    }
}
