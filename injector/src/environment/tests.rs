use super::*;

fn parse(variables: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
    let required = [("SIDECAR_IMAGE", "daprd:1"), ("NAMESPACE", "dapr-system")];
    let all = required.iter().chain(variables);
    Environment::parse(
        &all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    )
}

fn error(variables: &[(&str, &str)]) -> String {
    parse(variables).unwrap_err().to_string()
}

#[test]
fn defaults() {
    let env = parse(&[]).unwrap();
    assert_eq!(env.pull_policy, "Always");
    assert_eq!(env.trust_domain.as_str(), "cluster.local");
    assert_eq!(env.trust_anchors_file.to_str(), Some("/var/run/dapr.io/tls/ca.crt"));
    assert_eq!(env.component_sockets_folder, "/tmp/dapr-components-sockets");
    assert_eq!(
        env.actors,
        Actors::Placement(Address {
            service: "dapr-placement-server".into(),
            port: 50005
        })
    );
    assert_eq!((env.run_as_user, env.run_as_group, env.reminders), (None, None, None));
    assert!(env.run_as_non_root && env.read_only_root_filesystem);
    assert!(!env.drop_all_capabilities && !env.downward_apis && !env.native_sidecar && !env.skip_root_check);
}

#[test]
fn anchors_are_mounted_when_they_are_distributed() {
    let name = |variables: &[(&str, &str)]| parse(variables).unwrap().trust_anchors_config_map;
    let other = ("TRUST_ANCHORS_CONFIGMAP_NAME", "other");
    assert_eq!(name(&[]), None);
    assert_eq!(name(&[other]), None);
    let on = ("TRUST_DISTRIBUTION_ENABLED", "true");
    assert_eq!(name(&[on]).as_deref(), Some("dapr-root-ca.crt"));
    assert_eq!(name(&[on, other]).as_deref(), Some("other"));
}

#[test]
fn required_variables_must_be_there() {
    let missing = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Environment::parse(&variables.collect()).unwrap_err().to_string()
    };
    assert_eq!(
        missing(&[("NAMESPACE", "x")]),
        "required key SIDECAR_IMAGE missing value"
    );
    assert_eq!(
        missing(&[("SIDECAR_IMAGE", "")]),
        "required key NAMESPACE missing value"
    );
    assert_eq!(
        missing(&[("SIDECAR_IMAGE", ""), ("NAMESPACE", "")]),
        "NAMESPACE is empty: it must name the control plane's namespace"
    );
}

#[test]
fn present_but_empty_overrides_a_default() {
    assert_eq!(
        parse(&[("DAPR_COMPONENT_SOCKETS_FOLDER", "")])
            .unwrap()
            .component_sockets_folder,
        ""
    );
    assert_eq!(
        parse(&[("SIDECAR_IMAGE_PULL_POLICY", "")]).unwrap().pull_policy,
        "IfNotPresent"
    );
    let error = parse(&[("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "")]).unwrap_err();
    assert_eq!(
        format!("{:#}", anyhow::Error::from(error)),
        "invalid value for DAPR_CONTROL_PLANE_TRUST_DOMAIN: trust domain is empty"
    );
}

#[test]
fn pull_policy_is_exact() {
    for (found, expected) in [
        ("Always", "Always"),
        ("Never", "Never"),
        ("always", "IfNotPresent"),
        ("IfNotPresent", "IfNotPresent"),
    ] {
        assert_eq!(
            parse(&[("SIDECAR_IMAGE_PULL_POLICY", found)]).unwrap().pull_policy,
            expected
        );
    }
}

#[test]
fn booleans_are_lenient() {
    let env = parse(&[
        ("SIDECAR_RUN_AS_NON_ROOT", "no"),
        ("SIDECAR_DROP_ALL_CAPABILITIES", "Yes"),
        ("NATIVE_SIDECAR_ENABLED", "1"),
        ("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK", "TRUE"),
    ])
    .unwrap();
    assert!(!env.run_as_non_root && env.drop_all_capabilities && env.native_sidecar);
    assert!(!env.skip_root_check, "exactly true");
}

#[test]
fn numbers() {
    let env = parse(&[("SIDECAR_RUN_AS_USER", "1000"), ("SIDECAR_RUN_AS_GROUP", "0")]).unwrap();
    assert_eq!((env.run_as_user, env.run_as_group), (Some(1000), Some(0)));
    assert_eq!(
        error(&[("SIDECAR_RUN_AS_USER", "root")]),
        "invalid value for SIDECAR_RUN_AS_USER: \"root\" is not an integer"
    );
}

#[test]
fn actor_and_reminder_services() {
    let other = |name: &str, service: &str, port| Service {
        name: name.into(),
        address: Address {
            service: service.into(),
            port,
        },
    };
    let actors = |enabled, name, address| {
        parse(&[
            ("ACTORS_ENABLED", enabled),
            ("ACTORS_SERVICE_NAME", name),
            ("ACTORS_SERVICE_ADDRESS", address),
        ])
    };
    assert_eq!(actors("false", "placement", "a:1").unwrap().actors, Actors::Disabled);
    assert_eq!(
        actors("", "placement", "a:1").unwrap().actors,
        Actors::Placement(other("", "a", 1).address)
    );
    assert_eq!(
        actors("true", "mine", "a.b:70000").unwrap().actors,
        Actors::Other(other("mine", "a.b", 70000))
    );
    for bad in ["", "a", ":1", "a:", "a:0", "a:-1", "a:1:2", "a:x"] {
        let expected =
            format!("invalid value for actor service address: {bad:?} is not <name>:<port> with a port above 0");
        assert_eq!(actors("true", "mine", bad).unwrap_err().to_string(), expected);
    }
    let reminders = |name, address| parse(&[("REMINDERS_SERVICE_NAME", name), ("REMINDERS_SERVICE_ADDRESS", address)]);
    assert_eq!(reminders("default", "").unwrap().reminders, None);
    assert_eq!(reminders("r", "s:5").unwrap().reminders, Some(other("r", "s", 5)));
    assert!(reminders("r", "").is_err());
}

#[test]
fn allowed_accounts_are_checked() {
    assert_eq!(
        error(&[("ALLOWED_SERVICE_ACCOUNTS", "shop")]),
        "cannot use the allowed service accounts: invalid pattern \"shop\", must contain exactly one ':' separating \
         namespace and name"
    );
    assert!(parse(&[("ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES", "a*:b*")]).is_ok());
}

#[test]
fn tolerations_that_cannot_be_read_are_ignored() {
    let of = |json| {
        parse(&[("IGNORE_ENTRYPOINT_TOLERATIONS", json)])
            .unwrap()
            .ignore_entrypoint_tolerations
    };
    assert_eq!(of(r#"[{"Key":"k","operator":"Exists"}]"#).len(), 1);
    for broken in ["", "x", "{}", r#"[{\"key\":\"k\"}]"#] {
        assert!(of(broken).is_empty(), "{broken}");
    }
}
