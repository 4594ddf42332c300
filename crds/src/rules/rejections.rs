//! What our definitions refuse beyond upstream's.
//!
//! Only values that every stock program fails on, and never the absence of a field that upstream lets be absent. Nothing
//! here uses `x-kubernetes-list-type` or `required`: an object stored before a rule existed stays editable, since API
//! servers from 1.30 on check a rule again only where the value changes, and those two are exceptions to that. A rule is
//! about one field alone: one about two would stand at the object around them, and lock all its other fields. A list is one
//! field with all that is in it.

use super::{Check::Field, Enforcement::Reject, Rule, table};

/// Sizes that no real object comes near: Kubernetes wants them to know what the rules above cost at most.
pub static BOUNDS: &[Bound] = &[
    Bound::new("Configuration", "spec.secrets.scopes", "maxItems", 150),
    Bound::new("Configuration", "spec.secrets.scopes[].storeName", "maxLength", 512),
    Bound::new("Configuration", "spec.secrets.scopes[].defaultAccess", "maxLength", 512),
    Bound::new("Resiliency", "spec.policies.timeouts", "maxProperties", 500),
    Bound::new("Resiliency", "spec.policies.timeouts{}", "maxLength", 256),
    Bound::new("Resiliency", "spec.policies.retries", "maxProperties", 500),
    Bound::new("Resiliency", "spec.policies.retries{}.policy", "maxLength", 256),
    Bound::new("Resiliency", "spec.policies.retries{}.duration", "maxLength", 256),
    Bound::new("Resiliency", "spec.policies.retries{}.maxInterval", "maxLength", 256),
    Bound::new(
        "Resiliency",
        "spec.policies.retries{}.matching.httpStatusCodes",
        "maxLength",
        1_024,
    ),
    Bound::new(
        "Resiliency",
        "spec.policies.retries{}.matching.gRPCStatusCodes",
        "maxLength",
        1_024,
    ),
    Bound::new("Resiliency", "spec.policies.circuitBreakers", "maxProperties", 500),
    Bound::new(
        "Resiliency",
        "spec.policies.circuitBreakers{}.interval",
        "maxLength",
        256,
    ),
    Bound::new(
        "Resiliency",
        "spec.policies.circuitBreakers{}.timeout",
        "maxLength",
        256,
    ),
    Bound::new("Resiliency", "spec.policies.circuitBreakers{}.trip", "maxLength", 512),
    Bound::new("Subscription", "spec.routes.rules", "maxItems", 125),
    Bound::new("Subscription", "spec.routes.rules[].match", "maxLength", 2_048),
];

/// The largest size of a field.
#[derive(Debug, PartialEq, Eq)]
pub struct Bound {
    pub kind: &'static str,
    pub field: &'static str,
    /// `maxItems`, `maxProperties` or `maxLength`.
    pub keyword: &'static str,
    pub value: u32,
}

impl Bound {
    /// The bound of a field, if it has one.
    pub(crate) fn of(kind: &str, field: &str) -> Option<usize> {
        let mut bounds = BOUNDS.iter();
        let bound = bounds.find(|bound| (bound.kind, bound.field) == (kind, field))?;
        usize::try_from(bound.value).ok()
    }

    const fn new(kind: &'static str, field: &'static str, keyword: &'static str, value: u32) -> Self {
        Self {
            kind,
            field,
            keyword,
            value,
        }
    }
}

/// Go's durations: `0`, or numbers with units.
macro_rules! go_duration {
    () => {
        "0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+"
    };
}

/// Status codes and ranges of them; `$code` matches one code. Go's `Atoi` takes a plus sign and leading zeros.
macro_rules! status_codes {
    ($code:literal) => {
        concat!(
            "self.matches('^([+]?0*",
            $code,
            "(-[+]?0*",
            $code,
            ")?)?(,([+]?0*",
            $code,
            "(-[+]?0*",
            $code,
            ")?)?)*$')",
        )
    };
}

/// An operand of a CEL expression with what may stand around it: no look at nesting.
macro_rules! cel_operand {
    () => {
        r#"([-!(\[{]\s*)*([bB]?"([^"\\]|\\.)*"|[bB]?'([^'\\]|\\.)*'|[A-Za-z0-9_.]+|\[\s*\]|\{\s*\})(\s*,?\s*[)\]}]|\s*\(\s*\)|\s*\{\s*\})*"#
    };
}

/// Whether a text can be a CEL expression: operands with operators between them. What a regular expression cannot see
/// (nesting, and strings in unusual quotes) is let through.
macro_rules! cel_expression {
    () => {
        concat!(
            r#"self.matches(r'''["']{3}|[rR]["']|//|`''') || self.matches(r'''^\s*"#,
            cel_operand!(),
            r"(\s*(==|!=|<=|>=|&&|[|][|]|[-+*/%<>?:,.(\[{]|in\b)\s*",
            cel_operand!(),
            r")*\s*$''')",
        )
    };
}

const DURATION_SAYS: &str = "is not a duration: expected numbers with units such as 300ms, 1.5h or 2h45m";
const RESILIENCY_DURATION_SAYS: &str =
    "is not a duration: expected numbers with units such as 300ms, 1.5h or 2h45m, or a number of milliseconds";
const UNREADABLE_RESILIENCY: &str = "daprd logs `Could not read resiliency policy` and applies no target of the object";
const NEGATIVE_CACHE: &str = "daprd cannot make the cache, logs `Could not read resiliency policy`, and drops every target that it \
    has not read yet, those of components always";

table! {
    COMPONENT_TYPE = Rule {
        kinds: &["Component"],
        fields: &["spec.type"],
        says: "is no component type: expected <category>.<name>, such as state.redis",
        effect: "daprd has no such component: it exits, or goes on without it if it has `ignoreErrors`",
        enforcement: Reject(Field { rule: "self.matches('^[^.]+[.].+$')", found: Some("self") }),
    };

    CONFIGURATION_DURATION = Rule {
        kinds: &["Configuration"],
        fields: &[
            "spec.tracing.otel.timeout",
            "spec.metric.workflow.latencyDistributionUnits",
            "spec.metrics.workflow.latencyDistributionUnits",
            "spec.workflow.stateRetentionPolicy.anyTerminal",
            "spec.workflow.stateRetentionPolicy.completed",
            "spec.workflow.stateRetentionPolicy.failed",
            "spec.workflow.stateRetentionPolicy.terminated",
        ],
        says: DURATION_SAYS,
        effect: "the operator cannot decode the object, and with it no list of Configurations of any namespace",
        enforcement: Reject(Field { rule: concat!("self.matches('^[+-]?(", go_duration!(), ")$')"), found: Some("self") }),
    };
    ZIPKIN_ADDRESS = Rule {
        kinds: &["Configuration"],
        fields: &["spec.tracing.zipkin.endpointAddress"],
        says: "is no URL: expected scheme and host, such as http://zipkin:9411/api/v2/spans",
        effect: "daprd exits at start: `invalid collector URL`",
        enforcement: Reject(Field {
            rule: r"self == '' || self.matches(r'^[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]')",
            found: Some("self"),
        }),
    };
    POLICY_APP_ID = Rule {
        kinds: &["Configuration"],
        fields: &["spec.accessControl.policies[].appId"],
        says: "is no app id: expected the app id of the caller",
        effect: "daprd exits at start: `invalid access control spec`",
        enforcement: Reject(Field { rule: "self != ''", found: Some("''") }),
    };
    SECRET_STORE_TWICE = Rule {
        kinds: &["Configuration"],
        fields: &["spec.secrets.scopes"],
        says: "names a secret store more than once: expected one item for each",
        effect: "daprd exits at start: `storeName is repeated in secrets configuration`",
        enforcement: Reject(Field {
            rule: "self.all(a, self.exists_one(b, b.storeName == a.storeName))",
            found: None,
        }),
    };
    SECRET_DEFAULT_ACCESS = Rule {
        kinds: &["Configuration"],
        fields: &["spec.secrets.scopes[].defaultAccess"],
        says: "is no access: expected allow or deny",
        effect: "daprd exits at start: `defaultAccess … can be either allow or deny`",
        enforcement: Reject(Field { rule: "self.matches('(?i)^(allow|deny)?$')", found: Some("self") }),
    };

    MCP_TIMEOUT = Rule {
        kinds: &["MCPServer"],
        fields: &["spec.endpoint.streamableHTTP.timeout", "spec.endpoint.sse.timeout"],
        says: DURATION_SAYS,
        effect: "the operator cannot decode the object, and with it no list of MCPServers of any namespace",
        enforcement: Reject(Field { rule: concat!("self.matches('^[+-]?(", go_duration!(), ")$')"), found: Some("self") }),
    };
    MCP_URL = Rule {
        kinds: &["MCPServer"],
        fields: &["spec.endpoint.streamableHTTP.url", "spec.endpoint.sse.url"],
        says: "is no URL of a server: expected http or https with a host, such as https://api.example.com",
        effect: "daprd reports `failed security validation` and exits, or goes on without the server if it has `ignoreErrors`",
        enforcement: Reject(Field { rule: r"self == '' || self.matches(r'(?i)^https?://[^/?#\s]')", found: Some("self") }),
    };

    RESILIENCY_TIMEOUT = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.timeouts{}"],
        says: RESILIENCY_DURATION_SAYS,
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: concat!("self.matches('^[+-]?([0-9]+|", go_duration!(), ")$')"), found: Some("self") }),
    };
    RESILIENCY_DURATION = Rule {
        kinds: &["Resiliency"],
        fields: &[
            "spec.policies.retries{}.duration",
            "spec.policies.retries{}.maxInterval",
            "spec.policies.circuitBreakers{}.interval",
            "spec.policies.circuitBreakers{}.timeout",
        ],
        says: RESILIENCY_DURATION_SAYS,
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field {
            rule: concat!("self == '' || self.matches('^[+-]?([0-9]+|", go_duration!(), ")$')"),
            found: Some("self"),
        }),
    };
    RETRY_POLICY = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.retries{}.policy"],
        says: "is no retry policy: expected constant or exponential",
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: "self.matches('(?i)^(constant|exponential)?$')", found: Some("self") }),
    };
    HTTP_STATUS_CODES = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.retries{}.matching.httpStatusCodes"],
        says: "is not a list of HTTP status codes: expected codes from 100 to 599 and ranges of them, such as 429,500-599",
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: status_codes!("[1-5][0-9][0-9]"), found: Some("self") }),
    };
    GRPC_STATUS_CODES = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.retries{}.matching.gRPCStatusCodes"],
        says: "is not a list of gRPC status codes: expected codes from 0 to 16 and ranges of them, such as 4,8-14",
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: status_codes!("([0-9]|1[0-6])"), found: Some("self") }),
    };
    CIRCUIT_BREAKER_MAX_REQUESTS = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.circuitBreakers{}.maxRequests"],
        says: "is negative: expected 0 or more",
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: "self >= 0", found: None }),
    };
    CIRCUIT_BREAKER_TRIP = Rule {
        kinds: &["Resiliency"],
        fields: &["spec.policies.circuitBreakers{}.trip"],
        says: "is no CEL expression: expected one, such as consecutiveFailures >= 5",
        effect: UNREADABLE_RESILIENCY,
        enforcement: Reject(Field { rule: concat!(
                "self == '' || (",
                cel_expression!(),
                r#") && (self.matches(r'''["']|//''') || self.split('(').size() == self.split(')').size())"#,
            ), found: Some("self") }),
    };
    CIRCUIT_BREAKER_CACHE_SIZE = Rule {
        kinds: &["Resiliency"],
        fields: &[
            "spec.targets.apps{}.circuitBreakerCacheSize",
            "spec.targets.actors{}.circuitBreakerCacheSize",
        ],
        says: "is negative: expected 0 or more",
        effect: NEGATIVE_CACHE,
        enforcement: Reject(Field { rule: "self >= 0", found: None }),
    };

    ROUTE_MATCH = Rule {
        kinds: &["Subscription"],
        fields: &["spec.routes.rules[].match"],
        says: "is no CEL expression: expected one, such as event.type == \"order.created\"",
        effect: "daprd cannot parse the rule and exits",
        enforcement: Reject(Field { rule: concat!(r"self.matches(r'^\s*$') || ", cel_expression!()), found: Some("self") }),
    };
}
