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
pub fn not_enabled(pod: &Pod) -> Option<String> {
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
pub fn of_pod(pod: &Pod, sidecar: &Sidecar<'_>) -> Vec<String> {
    let mut warnings: Vec<String> = TABLE
        .iter()
        .filter_map(|annotation| Some((annotation, pod.annotation(annotation.key)?)))
        .flat_map(|(annotation, value)| of_value(*annotation, value))
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
fn unknown_keys(pod: &Pod) -> impl Iterator<Item = (&str, Option<&'static str>)> {
    let known = || TABLE.iter().map(|annotation| annotation.key).chain(OF_OTHERS);
    pod.metadata
        .annotations
        .keys()
        .map(String::as_str)
        .filter(|found| found.starts_with(PREFIX))
        .filter(move |found| !known().any(|key| key == *found))
        .take(MAX_OF_A_KIND)
        .map(move |found| (found, nearest(found, known())))
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
mod tests {
    use super::*;
    use crate::{patch::tests::settings, pod::Map};

    fn pod(annotations: &[(&str, &str)]) -> Pod {
        let annotations: Map = annotations
            .iter()
            .map(|(key, value)| (format!("dapr.io/{key}"), (*value).to_owned()))
            .collect();
        let mut pod = Pod::decode(r#"{"spec":{"containers":[{"name":"main"}],"volumes":[{"name":"data"}]}}"#).unwrap();
        pod.metadata.annotations = annotations;
        pod
    }

    fn warnings(annotations: &[(&str, &str)]) -> Vec<String> {
        let pod = pod(annotations);
        of_pod(&pod, &Sidecar::resolve(&pod, &settings()))
    }

    #[test]
    fn each_kind_of_mistake_has_its_sentence() {
        for (annotation, value, expected) in [
            ("app-port", "3o00", "\"3o00\" is not a port; it is ignored"),
            (
                "app-port",
                "70000",
                "\"70000\" is not a port between 1 and 65535; the sidecar may refuse it",
            ),
            (
                "grpc-port",
                "0",
                "\"0\" is not a port between 1 and 65535; the sidecar may refuse it",
            ),
            (
                "sidecar-readiness-probe-threshold",
                "2147483648",
                "\"2147483648\" is not a 32-bit integer; it is ignored",
            ),
            ("app-max-concurrency", "", "\"\" is not an integer; it is ignored"),
            (
                "log-as-json",
                "truee",
                "\"truee\" counts as false; expected true or false",
            ),
            (
                "block-shutdown-duration",
                "10",
                "\"10\" is not a duration such as 30s or 1m30s; the sidecar may refuse it",
            ),
            (
                "sidecar-cpu-limit",
                "1 core",
                "\"1 core\" is not a quantity such as 500m or 128Mi; no requests or limits are set on the sidecar",
            ),
            (
                "max-body-size",
                "4MB",
                "\"4MB\" is not a quantity such as 4Mi; the sidecar may refuse it",
            ),
            (
                "log-level",
                "verbose",
                "\"verbose\" is not one of debug, info, warn, error, fatal; the sidecar may refuse it",
            ),
            (
                "app-protocol",
                "tcp",
                "\"tcp\" is not one of http, https, grpc, grpcs, h2c; the sidecar may refuse it",
            ),
            ("env", "A=1,B", ""),
            ("env", "nothing", "an entry without '=' is ignored"),
            (
                "env-from-secret",
                "A=a:b:c",
                "A is not set, because \"a:b:c\" is not secret or secret:key",
            ),
            ("volume-mounts", "data", "\"data\" is not volume:path; it is ignored"),
            (
                "volume-mounts-rw",
                "data:/a,other:/b",
                "the pod has no volume \"other\"; it is not mounted into the sidecar",
            ),
            ("pluggable-components", "main, x", "the pod has no container \" x\""),
        ] {
            let expected: Vec<_> = Some(format!("annotation dapr.io/{annotation}: {expected}"))
                .filter(|text| !text.ends_with(": "))
                .into_iter()
                .collect();
            assert_eq!(warnings(&[(annotation, value)]), expected, "{annotation}={value}");
        }
        assert_eq!(
            warnings(&[("component-container", "{}")]),
            ["annotation dapr.io/component-container has an effect on Component resources only, not on pods"]
        );
    }

    #[test]
    fn good_values_have_none() {
        let good = [
            ("enabled", "true"),
            ("app-port", "0"),
            ("log-level", "DEBUG"),
            ("app-protocol", "gRPC"),
            ("log-as-json", "off"),
            ("sidecar-memory-limit", "128Mi"),
            ("control-plane", "injector"),
            ("volume-mounts", "data:/data"),
            ("pluggable-components", "main"),
        ];
        assert_eq!(warnings(&good), Vec::<String>::new());
    }

    #[test]
    fn unknown_annotations_name_what_was_meant() {
        assert_eq!(
            warnings(&[("appid", "a"), ("something-else", "b")]),
            [
                "annotation dapr.io/appid is unknown; did you mean dapr.io/app-id?",
                "annotation dapr.io/something-else is unknown and has no effect"
            ]
        );
    }

    #[test]
    fn a_sidecar_that_was_meant_is_noticed() {
        assert_eq!(
            not_enabled(&pod(&[("enabled", "yes")])).unwrap(),
            "no Dapr sidecar: annotation dapr.io/enabled is \"yes\", and only \"true\" asks for one"
        );
        assert_eq!(
            not_enabled(&pod(&[("enable", "true")])).unwrap(),
            "no Dapr sidecar: annotation dapr.io/enable is unknown; did you mean dapr.io/enabled?"
        );
        for silent in [&[][..], &[("enabled", "false")], &[("appid", "x")], &[("config", "x")]] {
            assert_eq!(not_enabled(&pod(silent)), None);
        }
    }

    #[test]
    fn warnings_fit_into_the_answer() {
        let long = format!("a\nb{}", "ä".repeat(200));
        let fitted = fit(vec![long; 20]);
        assert_eq!(fitted.len(), 13);
        assert!(fitted[0].len() <= 256 && fitted[0].starts_with("a bä") && fitted[0].ends_with('…'));
        assert_eq!(fitted[12], "8 more warnings about this pod are in the injector's log");
    }

    #[test]
    fn mistakes_without_number_do_not_make_warnings_without_number() {
        let many = ",".repeat(10_000);
        let unknown: Vec<String> = (0..10_000).map(|n| format!("unknown-{n}")).collect();
        let mut annotations: Vec<_> = unknown.iter().map(|name| (name.as_str(), "")).collect();
        annotations.extend([("pluggable-components", many.as_str()), ("enabled", "true")]);
        assert_eq!(warnings(&annotations).len(), 2 * MAX_OF_A_KIND);
    }
}
