//! WorkflowAccessPolicy: upstream's definition checks most of it already.

use outrigger_core::app_id;

use super::{Findings, Problem, repeated};
use crate::{WorkflowAccessPolicy, rules::warnings};

pub(crate) fn workflow_access_policy(policy: &WorkflowAccessPolicy) -> Vec<Problem> {
    let mut findings = Findings::default();
    for (rule_index, rule) in policy.spec.rules.iter().flatten().enumerate() {
        let callers = rule.callers.as_deref().unwrap_or_default();
        let field = format!("spec.rules[{rule_index}].callers");
        for (index, caller) in callers.iter().enumerate() {
            if app_id::validate(&caller.app_id).is_err() {
                findings.value(
                    &warnings::WORKFLOW_CALLER,
                    format!("{field}[{index}].appID"),
                    &caller.app_id,
                );
            }
        }
        for caller in repeated(callers.iter().map(|caller| caller.app_id.as_str())) {
            findings.value(&warnings::WORKFLOW_TWICE, &field, caller);
        }
    }
    findings.scopes(&policy.scopes);
    findings.0
}
