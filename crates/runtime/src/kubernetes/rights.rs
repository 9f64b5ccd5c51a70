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
const CLAIMS: Right = here("coordination.k8s.io", "leases", &["get", "list", "create", "patch", "delete"]);
const ALL_CLAIMS: Right = everywhere("coordination.k8s.io", "leases");
const NODE_PORT: [Right; 3] =
    [here("", "services", &["get", "create", "patch", "delete"]), CLAIMS, ALL_CLAIMS];
const HOST_PORT: [Right; 2] = [CLAIMS, ALL_CLAIMS];

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// One verb on one resource, as a person would say it.
    fn granted(of: Of, group: &str, resource: &str, verb: &str) -> String {
        let place = match of {
            Of::TheNamespace => "here".to_owned(),
            Of::AllNamespaces => "everywhere".to_owned(),
            Of::Identity => format!("of {IDENTITY}"),
        };
        format!("{verb} {group}/{resource} {place}")
    }

    /// No more than is needed is granted, and no less.
    #[test]
    fn the_manifest_grants_exactly_these_rights() {
        let manifest = include_str!("../../../../deploy/kubernetes/rbac.yaml");
        let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let mut in_manifest = BTreeSet::new();
        for document in &documents {
            for rule in document["rules"].as_array().into_iter().flatten() {
                let fields: Vec<&str> = rule.as_object().unwrap().keys().map(String::as_str).collect();
                let of = match (document["kind"].as_str().unwrap(), rule.get("resourceNames")) {
                    ("Role", None) => Of::TheNamespace,
                    ("ClusterRole", None) => Of::AllNamespaces,
                    ("ClusterRole", Some(names)) if texts(names) == [IDENTITY] => Of::Identity,
                    (kind, names) => panic!("a {kind} for {names:?}"),
                };
                let known = ["apiGroups", "resourceNames", "resources", "verbs"];
                assert!(fields.iter().all(|field| known.contains(field)), "{fields:?}");
                for group in texts(&rule["apiGroups"]) {
                    for resource in texts(&rule["resources"]) {
                        for verb in texts(&rule["verbs"]) {
                            let right = granted(of, &group, &resource, &verb);
                            assert!(in_manifest.insert(right.clone()), "it is granted twice: {right}");
                        }
                    }
                }
            }
        }
        let needed = ALWAYS.iter().chain(&FORWARD).chain(&NODE_PORT).chain(&HOST_PORT);
        let needed: BTreeSet<String> = needed
            .flat_map(|right| right.verbs.iter().map(|it| granted(right.of, right.group, right.resource, it)))
            .collect();
        assert_eq!(in_manifest, needed);
        // Who is bound to a role that is none of these would have more.
        let roles = |kind: &str| {
            let of_kind = documents.iter().filter(move |it| it["kind"] == kind);
            of_kind.map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        };
        for binding in documents.iter().filter(|it| it["kind"].as_str().unwrap().ends_with("Binding")) {
            let role = &binding["roleRef"];
            let kind = role["kind"].as_str().unwrap();
            assert!(roles(kind).contains(role["name"].as_str().unwrap()), "{binding}");
        }
    }
}
