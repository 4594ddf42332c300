//! What looks like a mistake but need not be one for every sidecar, or what the API server cannot see.

use super::{Enforcement::Warn, Rule, table};

/// A rule that is reported, and refuses nothing.
const fn warn(
    kinds: &'static [&'static str],
    fields: &'static [&'static str],
    says: &'static str,
    effect: &'static str,
) -> Rule {
    Rule {
        kinds,
        fields,
        says,
        effect,
        enforcement: Warn,
    }
}

const COMPONENT: &[&str] = &["Component"];
const CONFIGURATION: &[&str] = &["Configuration"];
const ENDPOINT: &[&str] = &["HTTPEndpoint"];
const MCP: &[&str] = &["MCPServer"];
const RESILIENCY: &[&str] = &["Resiliency"];
const SUBSCRIPTION: &[&str] = &["Subscription"];
const POLICY: &[&str] = &["WorkflowAccessPolicy"];

const WITH_SCOPES: &[&str] = &[
    "Component",
    "HTTPEndpoint",
    "MCPServer",
    "Resiliency",
    "Subscription",
    "WorkflowAccessPolicy",
];
const WITH_PAIRS: &[&str] = &["Component", "Configuration", "HTTPEndpoint", "MCPServer"];
const PAIRS: &[&str] = &[
    "spec.metadata[]",
    "spec.headers[]",
    "spec.tracing.otel.headers[]",
    "spec.endpoint.streamableHTTP.headers[]",
    "spec.endpoint.sse.headers[]",
    "spec.endpoint.stdio.env[]",
];

table! {
    SCOPE_INVALID = warn(WITH_SCOPES, &["scopes[]"],
        "is no app id: expected at most 58 lower-case letters, digits and dashes",
        "no app has this id, so the scope matches nobody");
    SCOPE_TWICE = warn(WITH_SCOPES, &["scopes[]"], "is listed more than once: expected each app once", "nothing; the second is useless");

    PAIR_NAME_EMPTY = warn(WITH_PAIRS, PAIRS, "has no name: expected one", "the value reaches nobody");
    PAIR_NAME_TWICE = warn(WITH_PAIRS, PAIRS, "is the name of more than one item: expected a name for each", "daprd uses the last one");
    PAIR_NOTHING = warn(WITH_PAIRS, PAIRS,
        "has none of value, secretKeyRef and envRef: expected one of them", "daprd uses an empty value");
    PAIR_VALUE_AND_SECRET = warn(WITH_PAIRS, PAIRS,
        "has both value and secretKeyRef: expected one of them", "the secret replaces the value");
    PAIR_ENV_AND_MORE = warn(WITH_PAIRS, PAIRS,
        "has envRef beside value or secretKeyRef: expected one of them", "daprd ignores envRef");
    PAIR_ENV_FORBIDDEN = warn(WITH_PAIRS, PAIRS,
        "is no environment variable that may be referred to: expected a name without spaces that is not APP_API_TOKEN \
        and does not begin with DAPR_",
        "daprd logs a warning and uses an empty value");
    SECRET_NAME_EMPTY = warn(WITH_PAIRS, &["….secretKeyRef.name"],
        "has a secretKeyRef without the name of a secret: expected one", "the reference is ignored");
    SECRET_NAME_INVALID = warn(WITH_PAIRS, &["….secretKeyRef.name"],
        "is no name of a Secret: expected lower-case letters, digits, dashes and dots",
        "the operator finds no such Secret and answers every list of the namespace with an error");
    SECRET_KEY_INVALID = warn(WITH_PAIRS, &["….secretKeyRef.key"],
        "is no key of a Secret: expected letters, digits, dashes, underscores and dots",
        "the Secret has no such key; the value stays empty");

    COMPONENT_CATEGORY = warn(COMPONENT, &["spec.type"],
        "is of a category that stock sidecars do not know: expected bindings, configuration, conversation, crypto, lock, middleware, pubsub, secretstores or state",
        "daprd reports `incorrect type` and exits, or goes on without the component if it has `ignoreErrors`");
    COMPONENT_MIDDLEWARE = warn(COMPONENT, &["spec.type"],
        "is no middleware that stock sidecars know: expected middleware.http.<name>",
        "daprd finds no such middleware and exits, or goes on without it if it has `ignoreErrors`");
    COMPONENT_VERSION = warn(COMPONENT, &["spec.version"],
        "is no version of a component: expected v1, v2 and so on",
        "daprd looks for exactly this version and finds none");
    COMPONENT_INIT_TIMEOUT = warn(COMPONENT, &["spec.initTimeout"],
        "is not a duration above zero: expected a number with a unit, such as 10s",
        "daprd uses 5s when it is not a duration");
    COMPONENT_KEY_PREFIX = warn(COMPONENT, &["spec.metadata[name=keyPrefix]"],
        "contains ||, which separates prefix and key: expected a prefix without it",
        "daprd refuses the state store");
    COMPONENT_TRUTH = warn(COMPONENT, &["spec.metadata[name=actorStateStore]"],
        "is neither true nor false: expected one of them", "daprd reads it as false");
    COMPONENT_ENCRYPTION_KEY = warn(COMPONENT, &[
        "spec.metadata[name=primaryEncryptionKey]",
        "spec.metadata[name=secondaryEncryptionKey]",
    ], "is given as a value: expected a secretKeyRef", "daprd marks what it stores with an empty name, so that the key cannot be rotated");
    COMPONENT_DIRECTION = warn(COMPONENT, &["spec.metadata[name=direction]"],
        "is no direction of a binding: expected input, output or both with a comma",
        "daprd finds no direction that it knows and uses the binding for neither");
    COMPONENT_TOPIC_SCOPES = warn(COMPONENT, &[
        "spec.metadata[name=publishingScopes]",
        "spec.metadata[name=subscriptionScopes]",
    ], "is not a list of apps and topics: expected the form app1=topic1,topic2;app2=topic3",
        "daprd skips what has not the form, so the app is not limited");

    SAMPLING_RATE = warn(CONFIGURATION, &["spec.tracing.samplingRate"],
        "is no sampling rate: expected a number from 0 to 1", "daprd uses 0.0001 when it is no number, and traces all or nothing when it is out of range");
    OTEL_ADDRESS = warn(CONFIGURATION, &["spec.tracing.otel.endpointAddress"],
        "is no address: expected a host with a port, such as collector:4317", "daprd sends spans nowhere");
    OTEL_PROTOCOL = warn(CONFIGURATION, &["spec.tracing.otel.protocol"],
        "is no protocol of OpenTelemetry: expected grpc or http",
        "daprd exits at start: `invalid protocol … provided for Otel endpoint`");
    DEFAULT_ACTION = warn(CONFIGURATION, &[
        "spec.accessControl.defaultAction",
        "spec.accessControl.policies[].defaultAction",
        "spec.accessControl.policies[].operations[].action",
    ], "is no action: expected allow or deny", "daprd denies");
    POLICY_IDENTITY = warn(CONFIGURATION, &["spec.accessControl.policies[]"],
        "lacks trustDomain or namespace: expected both of the caller",
        "daprd exits at start: `invalid access control spec`");
    POLICY_TWICE = warn(CONFIGURATION, &["spec.accessControl.policies[]"],
        "has more than one policy for the same namespace: expected one", "daprd uses the last one");
    HTTP_VERB = warn(CONFIGURATION, &["spec.accessControl.policies[].operations[].httpVerb[]"],
        "is no HTTP method: expected upper-case letters, such as POST, or *",
        "no request has this method, so the action never applies");
    API_NAME = warn(CONFIGURATION, &["spec.api.allowed[].name", "spec.api.denied[].name"],
        "is no part of the API of stock sidecars: expected one, such as invoke, state or publish", "the rule matches nothing");
    API_VERSION = warn(CONFIGURATION, &["spec.api.allowed[].version", "spec.api.denied[].version"],
        "is no version of the API: expected v1, v1alpha1, v1alpha2, v1beta1, or the v1.0 of routes", "the rule matches nothing");
    API_PROTOCOL = warn(CONFIGURATION, &["spec.api.allowed[].protocol", "spec.api.denied[].protocol"],
        "is no protocol of the API: expected http or grpc", "the rule is ignored");
    PIPELINE_TYPE = warn(CONFIGURATION, &["spec.httpPipeline.handlers[].type", "spec.appHttpPipeline.handlers[].type"],
        "is no HTTP middleware: expected middleware.http.<name>", "daprd leaves the handler out, and lets requests pass");
    PIPELINE_NAME = warn(CONFIGURATION, &["spec.httpPipeline.handlers[].name", "spec.appHttpPipeline.handlers[].name"],
        "is empty: expected the name of a component", "daprd leaves the handler out, and lets requests pass");
    DENIED_COMPONENT = warn(CONFIGURATION, &["spec.components.deny[]"],
        "is no component type: expected a type, or a type and a version as in bindings.smtp/v1", "daprd ignores the item");
    FEATURE_UNKNOWN = warn(CONFIGURATION, &["spec.features[].name"],
        "is no feature that stock sidecars know: expected one, such as HotReload", "nothing; daprd lists it as enabled");
    FEATURE_TWICE = warn(CONFIGURATION, &["spec.features[].name"],
        "is listed more than once: expected each feature once", "daprd uses the last one");
    METRIC_BUCKETS = warn(CONFIGURATION, &[
        "spec.metric.latencyDistributionBuckets",
        "spec.metrics.latencyDistributionBuckets",
        "spec.metric.workflow.latencyDistributionBuckets",
        "spec.metrics.workflow.latencyDistributionBuckets",
    ], "are no bounds of buckets: expected numbers above zero, each larger than the one before", "histograms count wrongly");
    METRIC_REGEX = warn(CONFIGURATION, &["spec.metric.rules[].labels[].regex{}", "spec.metrics.rules[].labels[].regex{}"],
        "is no regular expression: expected one, such as orders/.+", "daprd logs an error and applies no rule");
    METRIC_PATH = warn(CONFIGURATION, &["spec.metric.http.pathMatching[]", "spec.metrics.http.pathMatching[]"],
        "is no pattern of a path: expected braces only around whole segments, as in /orders/{id}",
        "daprd ends with a panic at start, unless metrics are off");
    NOT_NEGATIVE = warn(CONFIGURATION, &[
        "spec.workflow.maxConcurrentWorkflowInvocations",
        "spec.workflow.maxConcurrentActivityInvocations",
        "spec.workflow.globalMaxConcurrentWorkflowInvocations",
        "spec.workflow.globalMaxConcurrentActivityInvocations",
        "spec.workflow.workflowConcurrencyLimits[].maxConcurrent",
        "spec.workflow.activityConcurrencyLimits[].maxConcurrent",
    ], "is negative: expected 0 or more", "daprd sets no limit");
    LIMIT_INCOMPLETE = warn(CONFIGURATION, &[
        "spec.workflow.workflowConcurrencyLimits[]",
        "spec.workflow.activityConcurrencyLimits[]",
    ], "lacks name or maxConcurrent: expected both", "the limit applies to nothing");
    RETENTION_NEGATIVE = warn(CONFIGURATION, &[
        "spec.workflow.stateRetentionPolicy.anyTerminal",
        "spec.workflow.stateRetentionPolicy.completed",
        "spec.workflow.stateRetentionPolicy.failed",
        "spec.workflow.stateRetentionPolicy.terminated",
    ], "is negative: expected 0s or more", "daprd removes the state at once");
    MTLS_DURATION = warn(CONFIGURATION, &["spec.mtls.workloadCertTTL", "spec.mtls.allowedClockSkew"],
        "is not a duration above zero: expected a number with a unit, such as 24h",
        "sentry exits at start if this is the control plane's configuration");
    MTLS_JWKS = warn(CONFIGURATION, &["spec.mtls.tokenValidators[].options"],
        "has no source: expected the URL, file or text of a key set",
        "sentry exits at start if this is the control plane's configuration");
    SECRET_BOTH_LISTS = warn(CONFIGURATION, &["spec.secrets.scopes[]"],
        "has both allowedSecrets and deniedSecrets: expected one of them", "daprd ignores deniedSecrets");

    ENDPOINT_URL = warn(ENDPOINT, &["spec.baseUrl"],
        "is no URL of a server: expected http or https with a host, such as https://api.example.com", "daprd cannot send a request to it");
    TLS_EMPTY = warn(ENDPOINT, &["spec.clientTLS"],
        "has neither rootCA nor privateKey: expected one of them or both", "daprd ends with a panic at start");
    TLS_NO_CERTIFICATE = warn(ENDPOINT, &["spec.clientTLS"],
        "has privateKey without certificate: expected both", "daprd ends with a panic at start");
    TLS_NO_KEY = warn(ENDPOINT, &["spec.clientTLS"],
        "has certificate without privateKey: expected both", "daprd ignores the certificate");
    TLS_DOCUMENT = warn(ENDPOINT, TLS_DOCUMENTS, "has neither value nor secretKeyRef: expected one of them",
        "daprd goes on as if it was not there");
    TLS_BOTH = warn(ENDPOINT, TLS_DOCUMENTS,
        "has both value and secretKeyRef: expected one of them", "the secret replaces the value");
    TLS_NOT_PEM = warn(ENDPOINT, TLS_DOCUMENTS, "has a value that is not PEM: expected -----BEGIN",
        "daprd exits at start");

    MCP_STDIO = warn(MCP, &["spec.endpoint.stdio"],
        "is refused by stock sidecars in Kubernetes: expected streamableHTTP or sse",
        "daprd exits, or goes on without the server if it has `ignoreErrors`");
    MCP_TWO_IDENTITIES = warn(MCP, &["spec.endpoint.streamableHTTP.auth", "spec.endpoint.sse.auth"],
        "has both oauth2 and spiffe: expected one of them", "daprd ignores spiffe");
    MCP_NO_SECRET = warn(MCP, &["spec.endpoint.streamableHTTP.auth.oauth2", "spec.endpoint.sse.auth.oauth2"],
        "has no secretKeyRef for the client secret: expected one",
        "daprd exits, or goes on without the server if it has `ignoreErrors`");
    MCP_TIMEOUT_ZERO = warn(MCP, &["spec.endpoint.streamableHTTP.timeout", "spec.endpoint.sse.timeout"],
        "is not above zero: expected a duration such as 30s", "every call fails, or daprd's own timeout holds");
    MCP_ENV_NAME = warn(MCP, &["spec.endpoint.stdio.env[].name"],
        "is no name of an environment variable: expected one without = and line breaks", "daprd refuses the server");

    POLICY_UNKNOWN = warn(RESILIENCY, &[
        "spec.targets.apps{}",
        "spec.targets.actors{}",
        "spec.targets.components{}.inbound",
        "spec.targets.components{}.outbound",
    ], "names a policy that the object does not define: expected one of its own", "daprd applies none, unless another Resiliency defines it");
    TARGET_EMPTY = warn(RESILIENCY, &["spec.targets.apps{}", "spec.targets.actors{}", "spec.targets.components{}"],
        "names no policy: expected one at least", "daprd applies none, not even the default policies");
    ACTOR_SCOPE = warn(RESILIENCY, &["spec.targets.actors{}"],
        "has circuitBreaker without circuitBreakerScope: expected id, type or both",
        "daprd logs `actor circuit breakers must include scope`, and drops every target that it has not read yet");
    CIRCUIT_BREAKER_SCOPE = warn(RESILIENCY, &["spec.targets.actors{}.circuitBreakerScope"],
        "is no scope of a circuit breaker: expected id, type or both",
        "daprd logs `unknown circuit breaker scope`, and drops every target that it has not read yet, those of components always");
    RETRY_COUNT = warn(RESILIENCY, &["spec.policies.retries{}.maxRetries"],
        "is below -1, which means without end: expected -1 or more", "daprd retries without end");
    RETRY_PROTECTED = warn(RESILIENCY, &["spec.policies.retries{}"],
        "is a built-in policy that cannot be replaced: expected another name", "daprd logs a warning and keeps its own");
    RETRY_BUILT_IN = warn(RESILIENCY, &["spec.policies.retries{}.maxRetries"],
        "is too few for a built-in policy: expected 3 or more", "daprd retries 3 times");
    RETRY_UNUSED = warn(RESILIENCY, &["spec.policies.retries{}.duration", "spec.policies.retries{}.maxInterval"],
        "has no effect with this policy: expected duration with constant, maxInterval with exponential", "daprd ignores it: duration is for constant, maxInterval for exponential");
    TRIP_UNKNOWN = warn(RESILIENCY, &["spec.policies.circuitBreakers{}.trip"],
        "is no count of a circuit breaker: expected requests, totalSuccesses, totalFailures, consecutiveSuccesses or \
        consecutiveFailures",
        "the expression fails each time, so the circuit breaker never opens");

    SUBSCRIPTION_EMPTY = warn(SUBSCRIPTION, &["spec.pubsubname", "spec.topic"],
        "is empty: expected a name", "daprd subscribes to nothing");
    ROUTE_NONE = warn(SUBSCRIPTION, &["spec.routes", "spec.route"],
        "leads nowhere: expected a default route or rules", "daprd takes messages and drops them");
    ROUTE_PATH_EMPTY = warn(SUBSCRIPTION, &["spec.routes.rules[].path"],
        "is empty: expected a path of the app", "daprd sends messages to the root of the app");
    ROUTE_UNREACHED = warn(SUBSCRIPTION, &["spec.routes.rules[]", "spec.routes.default"],
        "is never reached, since an earlier rule without a condition takes every message: expected that one last", "the path gets no message");
    DEAD_LETTER_LOOP = warn(SUBSCRIPTION, &["spec.deadLetterTopic"],
        "is the topic itself: expected another one", "a message that cannot be delivered comes back without end");
    BULK_NEGATIVE = warn(SUBSCRIPTION, &["spec.bulkSubscribe.maxMessagesCount", "spec.bulkSubscribe.maxAwaitDurationMs"],
        "is negative: expected 0 or more", "daprd uses its default");
    BULK_OFF = warn(SUBSCRIPTION, &["spec.bulkSubscribe"],
        "sets limits while enabled is false: expected enabled: true, or no limits", "messages are delivered one by one");
    RAW_PAYLOAD = warn(SUBSCRIPTION, &["spec.metadata.rawPayload"],
        "is neither true nor false: expected one of them", "daprd reads it as false");

    WORKFLOW_CALLER = warn(POLICY, &["spec.rules[].callers[].appID"],
        "is no app id: expected at most 58 lower-case letters, digits and dashes",
        "no app has this id, so nobody is allowed");
    WORKFLOW_TWICE = warn(POLICY, &["spec.rules[].callers[].appID"],
        "is listed more than once in the rule: expected each app once", "nothing; the second is useless");
}

const TLS_DOCUMENTS: &[&str] = &[
    "spec.clientTLS.rootCA",
    "spec.clientTLS.certificate",
    "spec.clientTLS.privateKey",
];
