//! Subscription, in both versions.

use std::collections::BTreeMap;

use super::{Findings, Problem, expression, shared::is_truth};
use crate::{
    rules::{rejections, warnings},
    subscription::{BulkSubscribe, v1alpha1, v2alpha1},
};

pub(crate) fn subscription_v1alpha1(subscription: &v1alpha1::Subscription) -> Vec<Problem> {
    let mut findings = Findings::default();
    let spec = &subscription.spec;
    findings.topic(&spec.pubsubname, &spec.topic, spec.dead_letter_topic.as_deref());
    if spec.route.is_empty() {
        findings.field(&warnings::ROUTE_NONE, "spec.route");
    }
    findings.delivery(spec.metadata.as_ref(), spec.bulk_subscribe.as_ref());
    findings.scopes(&subscription.scopes);
    findings.0
}

pub(crate) fn subscription_v2alpha1(subscription: &v2alpha1::Subscription) -> Vec<Problem> {
    let mut findings = Findings::default();
    let spec = &subscription.spec;
    findings.topic(&spec.pubsubname, &spec.topic, spec.dead_letter_topic.as_deref());
    findings.routes(&spec.routes);
    findings.delivery(spec.metadata.as_ref(), spec.bulk_subscribe.as_ref());
    findings.scopes(&subscription.scopes);
    findings.0
}

/// Whether a text can be the condition of a rule; an empty one takes every message.
pub(crate) fn is_match(text: &str) -> bool {
    text.trim().is_empty() || expression::names(text).is_some()
}

impl Findings {
    fn topic(&mut self, pubsub: &str, topic: &str, dead_letters: Option<&str>) {
        for (field, name) in [("spec.pubsubname", pubsub), ("spec.topic", topic)] {
            if name.is_empty() {
                self.field(&warnings::SUBSCRIPTION_EMPTY, field);
            }
        }
        if !topic.is_empty() && dead_letters == Some(topic) {
            self.value(&warnings::DEAD_LETTER_LOOP, "spec.deadLetterTopic", topic);
        }
    }

    fn routes(&mut self, routes: &v2alpha1::Routes) {
        let rules = routes.rules.as_deref().unwrap_or_default();
        let default = routes.default.as_deref().unwrap_or_default();
        if rules.is_empty() && default.is_empty() {
            self.field(&warnings::ROUTE_NONE, "spec.routes");
        }
        let mut takes_all = false;
        for (index, rule) in rules.iter().enumerate() {
            let field = format!("spec.routes.rules[{index}]");
            if takes_all {
                self.value(&warnings::ROUTE_UNREACHED, &field, &rule.path);
            }
            if rule.path.is_empty() {
                self.field(&warnings::ROUTE_PATH_EMPTY, format!("{field}.path"));
            }
            takes_all |= rule.match_.trim().is_empty();
            if !is_match(&rule.match_) {
                self.value(&rejections::ROUTE_MATCH, format!("{field}.match"), &rule.match_);
            }
        }
        if takes_all && !default.is_empty() {
            self.value(&warnings::ROUTE_UNREACHED, "spec.routes.default", default);
        }
    }

    fn delivery(&mut self, metadata: Option<&BTreeMap<String, String>>, bulk: Option<&BulkSubscribe>) {
        let raw = metadata.and_then(|metadata| metadata.get("rawPayload"));
        if let Some(raw) = raw.filter(|raw| !is_truth(raw)) {
            self.value(&warnings::RAW_PAYLOAD, "spec.metadata.rawPayload", raw);
        }
        let Some(bulk) = bulk else { return };
        let limits = [
            ("maxMessagesCount", bulk.max_messages_count),
            ("maxAwaitDurationMs", bulk.max_await_duration_ms),
        ];
        for (item, limit) in limits {
            if let Some(limit) = limit.filter(|limit| *limit < 0) {
                self.value(
                    &warnings::BULK_NEGATIVE,
                    format!("spec.bulkSubscribe.{item}"),
                    &limit.to_string(),
                );
            }
        }
        if !bulk.enabled && limits.iter().any(|(_, limit)| limit.is_some_and(|limit| limit > 0)) {
            self.field(&warnings::BULK_OFF, "spec.bulkSubscribe");
        }
    }
}
