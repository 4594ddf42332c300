//! Mistakes in annotations, as sentences for the person who creates the pod. None of them stops an injection: upstream ignores
//! or passes on the same values without a word.

use outrigger_core::{GoDuration, annotations::truthy, text::nearest};

use crate::{
    annotations::{self as key, Annotation, Kind, OF_OTHERS, PREFIX, TABLE},
    patch::{env, quantity, volumes},
    pod::Pod,
    sidecar::Sidecar,
};

/// The API server cuts off longer ones.
const MAX_LENGTH: usize = 256;
/// It also bounds their sum.
const MAX_COUNT: usize = 12;
/// Mistakes of one kind that are looked for: nothing bounds an annotation before admission, and each costs time and a line of
/// the log.
const MAX_OF_A_KIND: usize = 32;

/// Why `dapr.io/enabled` of a pod without a sidecar looks like a mistake, if it does.
pub fn not_enabled(pod: &Pod<'_>) -> Option<String> {
    match pod.annotation(key::ENABLED) {
        Some(value) if truthy(value) => Some(format!(
            "no Dapr sidecar: annotation {} is {value:?}, and only \"true\" asks for one",
            key::ENABLED
        )),
        Some(_) => None,
        None => {
            let mut unknown = unknown_keys(pod);
            let typo = unknown.find(|(_, suggestion)| *suggestion == Some(key::ENABLED));
            typo.map(|(found, _)| {
                format!(
                    "no Dapr sidecar: annotation {found} is unknown; did you mean {}?",
                    key::ENABLED
                )
            })
        }
    }
}

/// The requester may not have pods injected.
pub fn not_allowed(username: &str) -> String {
    match crate::authorise::account(username) {
        Some((namespace, name)) => format!(
            "no Dapr sidecar: {username} may not have sidecars injected; to allow it, add {namespace}:{name} to the Helm value \
             dapr_sidecar_injector.allowedServiceAccounts"
        ),
        None => format!(
            "no Dapr sidecar: user {username:?} may not have sidecars injected; create the pod through a workload such as a \
             Deployment, or as a member of system:masters"
        ),
    }
}

/// Somebody registered the webhook for more than pods.
pub fn not_a_pod(kind: &str) -> String {
    format!(
        "the sidecar injector was asked about {kind:?} and acts on pods only: see the rules of its MutatingWebhookConfiguration"
    )
}

/// Somebody registered the webhook for more than the creation of pods.
pub fn not_created(operation: &str) -> String {
    format!(
        "no Dapr sidecar: it can be added only when a pod is created, not by {operation:?}: see the rules of the sidecar \
         injector's MutatingWebhookConfiguration"
    )
}

/// Some container has the sidecar's name, and it was not us who put it there.
pub fn foreign_sidecar() -> String {
    "no Dapr sidecar was injected: the pod has a container named daprd already".to_owned()
}

/// The pod wants a native sidecar and the API server would drop what makes it one: the pod would hang in its init phase.
pub fn no_native_sidecars(version: &str) -> String {
    format!(
        "annotation {} or the injector's setting asks for a native sidecar, which needs Kubernetes 1.29 and this is {version}: \
         the sidecar is an ordinary container",
        key::ENABLE_NATIVE_SIDECAR
    )
}

/// The app id is taken from the pod's name, which is not known yet.
pub fn no_name() -> String {
    format!(
        "the pod is made from a template and has no name yet, so its app id must come from annotation {}",
        key::APP_ID
    )
}

/// All mistakes in the annotations of a pod that gets a sidecar.
pub fn of_pod(pod: &Pod<'_>, sidecar: &Sidecar<'_>) -> Vec<String> {
    let mut known: Vec<(usize, &str)> = prefixed(pod)
        .filter_map(|(found, value)| Some((TABLE.iter().position(|known| known.key == found)?, value)))
        .collect();
    // In the order of the table, which is far longer than most pods' annotations: it is not what is looked up.
    known.sort_unstable();
    let mut warnings: Vec<String> = known
        .into_iter()
        .flat_map(|(at, value)| of_value(TABLE[at], value))
        .collect();
    warnings.extend(unknown_keys(pod).map(|(found, suggestion)| match suggestion {
        Some(known) => format!("annotation {found} is unknown; did you mean {known}?"),
        None => format!("annotation {found} is unknown and has no effect"),
    }));
    let volumes = pod.volume_names();
    for annotation in [key::VOLUME_MOUNTS, key::VOLUME_MOUNTS_RW] {
        let entries = volumes::entries(pod.annotation(annotation).unwrap_or_default()).filter_map(Result::ok);
        let missing = entries
            .filter(|(volume, _)| !volumes.contains(volume))
            .take(MAX_OF_A_KIND);
        warnings.extend(missing.map(|(volume, _)| {
            format!("annotation {annotation}: the pod has no volume {volume:?}; it is not mounted into the sidecar")
        }));
    }
    if pod.spec.containers.is_empty() {
        warnings.push("the pod has no container of its own; the sidecar will be alone in it".to_owned());
    }
    if !sidecar.pluggable_components.is_empty() {
        let containers = pod.container_names();
        let listed = sidecar.pluggable_components.split(',');
        let missing = listed.filter(|name| !containers.contains(name)).take(MAX_OF_A_KIND);
        warnings.extend(missing.map(|name| {
            format!(
                "annotation {}: the pod has no container {name:?}",
                key::PLUGGABLE_COMPONENTS
            )
        }));
    }
    warnings
}

fn of_value(Annotation { key, kind, .. }: Annotation, value: &str) -> Vec<String> {
    let ignored = |expected: &str| vec![format!("annotation {key}: {value:?} is not {expected}; it is ignored")];
    let passed_on = |expected: String| {
        vec![format!(
            "annotation {key}: {value:?} is not {expected}; the sidecar may refuse it"
        )]
    };
    match kind {
        Kind::Int32 if value.parse::<i32>().is_err() => ignored("a 32-bit integer"),
        Kind::Int if value.parse::<i64>().is_err() => ignored("an integer"),
        Kind::Port => match value.parse::<i32>() {
            Err(_) => ignored("a port"),
            Ok(1..=65535) => Vec::new(),
            // Zero is how some say that there is none.
            Ok(0) if key == key::APP_PORT => Vec::new(),
            Ok(_) => passed_on("a port between 1 and 65535".to_owned()),
        },
        Kind::Bool if !is_boolean(value) => {
            vec![format!(
                "annotation {key}: {value:?} counts as false; expected true or false"
            )]
        }
        Kind::Duration if !value.is_empty() && GoDuration::parse(value).is_err() => {
            passed_on("a duration such as 30s or 1m30s".to_owned())
        }
        Kind::Quantity if !value.is_empty() && quantity::Quantity::parse(value).is_err() => {
            if is_resource(key) {
                vec![format!(
                    "annotation {key}: {value:?} is not a quantity such as 500m or 128Mi; no requests or limits are set on the \
                     sidecar"
                )]
            } else {
                passed_on("a quantity such as 4Mi".to_owned())
            }
        }
        Kind::Word(words) if !value.is_empty() && !words.iter().any(|word| word.eq_ignore_ascii_case(value)) => {
            passed_on(format!("one of {}", words.join(", ")))
        }
        Kind::Assignments => of_assignments(key, value),
        Kind::Mounts => volumes::entries(value)
            .filter_map(Result::err)
            .take(MAX_OF_A_KIND)
            .map(|entry| format!("annotation {key}: {entry:?} is not volume:path; it is ignored"))
            .collect(),
        Kind::OnComponents => vec![format!(
            "annotation {key} has an effect on Component resources only, not on pods"
        )],
        _ => Vec::new(),
    }
}

fn of_assignments(annotation: &str, value: &str) -> Vec<String> {
    let entries = env::entries(value).filter(|entry| !entry.is_empty());
    // The values of this annotation are names of secrets; those of the other may be anything, and are not repeated.
    let secrets = annotation == key::ENV_FROM_SECRET;
    entries
        .filter_map(|entry| match entry.split_once('=') {
            None => Some(format!("annotation {annotation}: an entry without '=' is ignored")),
            Some((name, secret)) if secrets && env::secret_reference(secret).is_none() => Some(format!(
                "annotation {annotation}: {name} is not set, because {secret:?} is not secret or secret:key"
            )),
            Some(_) => None,
        })
        .take(MAX_OF_A_KIND)
        .collect()
}

/// Whether everybody reads the value the same way.
fn is_boolean(value: &str) -> bool {
    let falsy = ["false", "f", "no", "n", "off", "0", ""];
    truthy(value) || falsy.iter().any(|word| word.eq_ignore_ascii_case(value.trim()))
}

fn is_resource(annotation: &str) -> bool {
    [
        key::SIDECAR_CPU_REQUEST,
        key::SIDECAR_CPU_LIMIT,
        key::SIDECAR_MEMORY_REQUEST,
        key::SIDECAR_MEMORY_LIMIT,
    ]
    .contains(&annotation)
}

/// Annotations with Dapr's prefix that nobody reads, each with the known one it resembles.
fn unknown_keys<'a>(pod: &'a Pod<'_>) -> impl Iterator<Item = (&'a str, Option<&'static str>)> {
    let known = || TABLE.iter().map(|annotation| annotation.key).chain(OF_OTHERS);
    prefixed(pod)
        .map(|(found, _)| found)
        .filter(move |found| !known().any(|key| key == *found))
        .take(MAX_OF_A_KIND)
        .map(move |found| (found, nearest(found, known())))
}

/// Annotations with Dapr's prefix.
fn prefixed<'a>(pod: &'a Pod<'_>) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = pod.metadata.annotations.iter();
    all.map(|(key, value)| (&**key, &**value))
        .filter(|(key, _)| key.starts_with(PREFIX))
}

/// Makes warnings fit into an answer: one line each, not too long, not too many.
pub fn fit(warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_COUNT);
    let mut fitting: Vec<String> = warnings
        .iter()
        .take(MAX_COUNT)
        .map(|warning| fit_one(warning))
        .collect();
    if more > 0 {
        fitting.push(format!("{more} more warnings about this pod are in the injector's log"));
    }
    fitting
}

fn fit_one(warning: &str) -> String {
    let mut line: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MAX_LENGTH {
        line.truncate(line.floor_char_boundary(MAX_LENGTH - '…'.len_utf8()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
