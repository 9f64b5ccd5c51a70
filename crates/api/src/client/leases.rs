//! The calls about bare leases.

use hyper::{Method, StatusCode};

use super::call::Call;
use super::{Client, ClientError};
use crate::{Lease, LeaseDocument, LeaseRequest, LeasesDocument};

impl Client {
    /// The bare leases of a project, or all, by their owners.
    ///
    /// # Errors
    /// [`ClientError`]
    pub async fn leases(&self, project: Option<&str>) -> Result<Vec<Lease>, ClientError> {
        let call = Call::new(Method::GET, &["v1", "leases"]);
        let call = match project {
            Some(project) => call.query("project", project),
            None => call,
        };
        Ok(self.document::<LeasesDocument>(&call).await?.leases)
    }

    /// Leases ports to an owner, or gives the lease that it has; tells whether it is new.
    ///
    /// # Errors
    /// [`ClientError`]; a problem `conflict` if the owner has another lease than the one that is wanted.
    pub async fn lease(
        &self,
        project: &str,
        name: &str,
        request: &LeaseRequest,
    ) -> Result<(Lease, bool), ClientError> {
        let call = Call::new(Method::PUT, &["v1", "leases", project, name]).body(request);
        let response = self.succeed(&call).await?;
        let created = response.status() == StatusCode::CREATED;
        let document: LeaseDocument = self.read(&call, response).await?;
        Ok((document.lease, created))
    }

    /// Releases the lease of an owner, only the one of the id `lease` if that is given, and with `force` also while its ports are
    /// in use. Gives it as it was; none if the owner has none.
    ///
    /// # Errors
    /// [`ClientError`]; a problem `conflict` if it is in use, or another one.
    pub async fn release(
        &self,
        project: &str,
        name: &str,
        lease: Option<&str>,
        force: bool,
    ) -> Result<Option<Lease>, ClientError> {
        let mut call = Call::new(Method::DELETE, &["v1", "leases", project, name]);
        if let Some(lease) = lease {
            call = call.query("lease", lease);
        }
        if force {
            call = call.query("force", "true");
        }
        let response = self.succeed(&call).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let document: LeaseDocument = self.read(&call, response).await?;
        Ok(Some(document.lease))
    }
}
