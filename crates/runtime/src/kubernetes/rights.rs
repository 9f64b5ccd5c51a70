//! What a broker's user may do on a cluster, asked right by right.

use futures_util::future::try_join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};

use super::{ANSWER, Expose, IDENTITY, within};
use crate::RuntimeError;

/// One kind of thing, and what is done with it.
struct Right {
    group: &'static str,
    /// With its part behind a `/`, if that is meant.
    resource: &'static str,
    verbs: &'static [&'static str],
    of: Of,
}

/// Those of the things that are meant.
#[derive(Clone, Copy)]
enum Of {
    TheNamespace,
    AllNamespaces,
    /// The namespace by which one cluster is told from another, itself.
    Identity,
}

const fn here(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { group, resource, verbs, of: Of::TheNamespace }
}

const fn everywhere(group: &'static str, resource: &'static str) -> Right {
    Right { group, resource, verbs: &["list"], of: Of::AllNamespaces }
}

const ALWAYS: [Right; 9] = [
    here("", "pods", &["get", "list", "watch", "create", "delete"]),
    here("", "pods/log", &["get"]),
    here("", "pods/exec", &["create"]),
    here("", "pods/attach", &["create"]),
    here("", "events", &["list"]),
    everywhere("", "pods"),
    everywhere("", "services"),
    everywhere("", "nodes"),
    Right { group: "", resource: "namespaces", verbs: &["get"], of: Of::Identity },
];
const FORWARD: [Right; 1] = [here("", "pods/portforward", &["create"])];
const NODE_PORT: [Right; 1] = [here("", "services", &["get", "create", "patch", "delete"])];
const HOST_PORT: [Right; 2] = [
    here("coordination.k8s.io", "leases", &["get", "list", "create", "patch", "delete"]),
    everywhere("coordination.k8s.io", "leases"),
];

/// What the user may not do of that which agents that are exposed in this way need; deploy/kubernetes/rbac.yaml grants it all.
pub(super) async fn missing(
    client: &Client,
    namespace: &str,
    expose: Expose,
) -> Result<Vec<String>, RuntimeError> {
    let further: &[Right] = match expose {
        Expose::Forward => &FORWARD,
        Expose::NodePort => &NODE_PORT,
        Expose::HostPort => &HOST_PORT,
        Expose::None => &[],
    };
    let asked = ALWAYS.iter().chain(further).map(|right| async move {
        let allowed = right.verbs.iter().map(|verb| is_allowed(client, namespace, right, verb));
        let allowed = try_join_all(allowed).await?;
        let verbs = right.verbs.iter().zip(allowed).filter(|(_, allowed)| !allowed);
        let verbs: Vec<&str> = verbs.map(|(verb, _)| *verb).collect();
        Ok((!verbs.is_empty()).then(|| right.told(&verbs.join(", "))))
    });
    Ok(try_join_all(asked).await?.into_iter().flatten().collect())
}

impl Right {
    /// What of it is not allowed, as it is told to a person.
    fn told(&self, verbs: &str) -> String {
        let resource = self.resource;
        match self.of {
            Of::TheNamespace => format!("{verbs} {resource} in its namespace"),
            Of::AllNamespaces => format!("{verbs} {resource} in all namespaces"),
            Of::Identity => format!(
                "{verbs} the namespace {IDENTITY} (without it the cluster works, and is not told from another one in its place)"
            ),
        }
    }
}

async fn is_allowed(
    client: &Client,
    namespace: &str,
    right: &Right,
    verb: &str,
) -> Result<bool, RuntimeError> {
    let (resource, part) = match right.resource.split_once('/') {
        Some((resource, part)) => (resource, Some(part.to_owned())),
        None => (right.resource, None),
    };
    let (name, namespace) = match right.of {
        Of::TheNamespace => (None, Some(namespace)),
        Of::AllNamespaces => (None, None),
        // As an API server understands the question for a namespace itself.
        Of::Identity => (Some(IDENTITY), Some(IDENTITY)),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(right.group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: part,
                verb: Some(verb.to_owned()),
                name: name.map(str::to_owned),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let parameters = PostParams::default();
    let answer = reviews.create(&parameters, &review);
    let answer = within(ANSWER, "say what its user may do", answer).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
