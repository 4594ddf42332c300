//! What upstream's definitions refuse already, beside types and required fields.

use super::{
    Check::{Keyword, Upstream},
    Enforcement::Reject,
    Rule,
    Value::{Number, Text, Words},
    table,
};

const POLICY: &[&str] = &["WorkflowAccessPolicy"];
const MCP: &[&str] = &["MCPServer"];
const SCHEMA: &str = "upstream's definition refuses it too";

table! {
    TLS_RENEGOTIATION = Rule {
        kinds: &["HTTPEndpoint"],
        fields: &["spec.clientTLS.renegotiation"],
        says: "must be one of the values in the schema",
        effect: SCHEMA,
        enforcement: Reject(Keyword("enum", Words(&["Never", "OnceAsClient", "FreelyAsClient"]))),
    };
    TOKEN_VALIDATOR_NAME = Rule {
        kinds: &["Configuration"],
        fields: &["spec.mtls.tokenValidators[].name"],
        says: "must be one of the values in the schema",
        effect: SCHEMA,
        enforcement: Reject(Keyword("enum", Words(&["jwks"]))),
    };
    MCP_ONE_TRANSPORT = Rule {
        kinds: MCP,
        fields: &["spec.endpoint"],
        says: "exactly one of streamableHTTP, sse, or stdio must be set",
        effect: SCHEMA,
        enforcement: Reject(Upstream(
            "(has(self.streamableHTTP) ? 1 : 0) + (has(self.sse) ? 1 : 0) + (has(self.stdio) ? 1 : 0) == 1",
        )),
    };
    MCP_NOT_EMPTY = Rule {
        kinds: MCP,
        fields: &[
            "spec.endpoint.streamableHTTP.url",
            "spec.endpoint.streamableHTTP.auth.oauth2.issuer",
            "spec.endpoint.streamableHTTP.auth.spiffe.jwt.header",
            "spec.endpoint.streamableHTTP.auth.spiffe.jwt.audience",
            "spec.endpoint.sse.url",
            "spec.endpoint.sse.auth.oauth2.issuer",
            "spec.endpoint.sse.auth.spiffe.jwt.header",
            "spec.endpoint.sse.auth.spiffe.jwt.audience",
            "spec.endpoint.stdio.command",
            "spec.middleware.beforeCallTool[].workflow.workflowName",
            "spec.middleware.afterCallTool[].workflow.workflowName",
            "spec.middleware.beforeListTools[].workflow.workflowName",
            "spec.middleware.afterListTools[].workflow.workflowName",
        ],
        says: "must not be empty",
        effect: SCHEMA,
        enforcement: Reject(Keyword("minLength", Number(1))),
    };
    POLICY_RULES = Rule {
        kinds: POLICY,
        fields: &["spec.rules", "spec.rules[].callers", "spec.rules[].workflows", "spec.rules[].activities"],
        says: "must have 100 items at most",
        effect: SCHEMA,
        enforcement: Reject(Keyword("maxItems", Number(100))),
    };
    POLICY_CALLERS = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].callers", "spec.rules[].workflows[].operations"],
        says: "must have an item",
        effect: SCHEMA,
        enforcement: Reject(Keyword("minItems", Number(1))),
    };
    POLICY_SOMETHING = Rule {
        kinds: POLICY,
        fields: &["spec.rules[]"],
        says: "at least one of workflows or activities must contain a rule",
        effect: SCHEMA,
        enforcement: Reject(Upstream(
            "(has(self.workflows) && size(self.workflows) > 0) || (has(self.activities) && size(self.activities) > 0)",
        )),
    };
    POLICY_NAME_EMPTY = Rule {
        kinds: POLICY,
        fields: POLICY_NAMES,
        says: "must not be empty",
        effect: SCHEMA,
        enforcement: Reject(Keyword("minLength", Number(1))),
    };
    POLICY_NAME_LONG = Rule {
        kinds: POLICY,
        fields: POLICY_NAMES,
        says: "must have 256 characters at most",
        effect: SCHEMA,
        enforcement: Reject(Keyword("maxLength", Number(256))),
    };
    POLICY_OPERATION = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[].operations[]"],
        says: "must be one of the values in the schema",
        effect: SCHEMA,
        enforcement: Reject(Keyword(
            "enum",
            Words(&["schedule", "terminate", "raise", "pause", "resume", "purge", "get", "rerun"]),
        )),
    };
    POLICY_OPERATIONS = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[].operations"],
        says: "must have 8 items at most",
        effect: SCHEMA,
        enforcement: Reject(Keyword("maxItems", Number(8))),
    };
    POLICY_OPERATIONS_SET = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[].operations"],
        says: "must not have an item twice",
        effect: SCHEMA,
        enforcement: Reject(Keyword("x-kubernetes-list-type", Text("set"))),
    };
    POLICY_REQUIRES = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[].requires", "spec.rules[].activities[].requires"],
        says: "must have 20 items at most",
        effect: SCHEMA,
        enforcement: Reject(Keyword("maxItems", Number(20))),
    };
    POLICY_REQUIRES_SCHEDULE = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[]"],
        says: "requires is only valid when the rule's only operation is 'schedule'",
        effect: SCHEMA,
        enforcement: Reject(Upstream(
            "!has(self.requires) || size(self.requires) == 0 || \
             (size(self.operations) == 1 && self.operations[0] == 'schedule')",
        )),
    };
    POLICY_EVENT_TYPE = Rule {
        kinds: POLICY,
        fields: &["spec.rules[].workflows[].requires[].eventType", "spec.rules[].activities[].requires[].eventType"],
        says: "must be one of the values in the schema",
        effect: SCHEMA,
        enforcement: Reject(Keyword(
            "enum",
            Words(&[
                "activity.started",
                "activity.completed",
                "workflow.started",
                "workflow.completed",
                "event.raised",
            ]),
        )),
    };
}

const POLICY_NAMES: &[&str] = &[
    "spec.rules[].callers[].appID",
    "spec.rules[].workflows[].name",
    "spec.rules[].workflows[].requires[].name",
    "spec.rules[].workflows[].requires[].appID",
    "spec.rules[].activities[].name",
    "spec.rules[].activities[].requires[].name",
    "spec.rules[].activities[].requires[].appID",
];
