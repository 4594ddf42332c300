//! Names of other objects in an object, and what others look for in it.

use crate::{
    Component, Configuration, HTTPEndpoint, MCPServer, Resiliency, Subscription, WorkflowAccessPolicy,
    configuration::Pipeline,
    mcp_server::{Hook, MutatingHook},
    resource::DaprResource,
};

/// A field that names something else in the object's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Path of the field, such as `spec.pubsubname`.
    pub field: String,
    pub target: Target,
}

/// What is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The app with this id.
    App(String),
    /// The component of this name, whose type begins with the category if there is one.
    Component {
        name: String,
        category: Option<&'static str>,
    },
}

/// What others look for in an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role<'a> {
    /// Of this type.
    Component(&'a str),
    Subscription {
        pubsub: &'a str,
        topic: &'a str,
    },
    /// Chosen by pods.
    Configuration,
    None,
}

/// How an object is related to others. Secrets are not among it: see [`DaprResource::secret_refs`].
pub trait Related: DaprResource {
    /// Names that lead nowhere are worth a warning, no more.
    fn references(&self) -> Vec<Reference> {
        scopes(self)
    }

    fn role(&self) -> Role<'_> {
        Role::None
    }

    /// Path of the field that [`DaprResource::secret_store`] reads.
    fn secret_store_field(&self) -> &'static str {
        "auth.secretStore"
    }
}

fn app(field: impl Into<String>, id: &str) -> Option<Reference> {
    (!id.is_empty()).then(|| Reference {
        field: field.into(),
        target: Target::App(id.to_owned()),
    })
}

fn component(field: impl Into<String>, name: &str, category: Option<&'static str>) -> Option<Reference> {
    (!name.is_empty()).then(|| Reference {
        field: field.into(),
        target: Target::Component {
            name: name.to_owned(),
            category,
        },
    })
}

fn scopes(object: &impl DaprResource) -> Vec<Reference> {
    let scopes = object.scopes().iter().enumerate();
    scopes
        .filter_map(|(index, id)| app(format!("scopes[{index}]"), id))
        .collect()
}

impl Related for Component {
    fn role(&self) -> Role<'_> {
        Role::Component(&self.spec.type_)
    }
}

impl Related for HTTPEndpoint {}

impl Related for Configuration {
    fn references(&self) -> Vec<Reference> {
        let mut all = handlers("spec.appHttpPipeline", self.spec.app_http_pipeline.as_ref());
        all.extend(handlers("spec.httpPipeline", self.spec.http_pipeline.as_ref()));
        let stores = self
            .spec
            .secrets
            .iter()
            .flat_map(|secrets| secrets.scopes.iter().flatten());
        all.extend(stores.enumerate().filter_map(|(index, scope)| {
            // Every sidecar has this one.
            let name = Some(&*scope.store_name).filter(|name| *name != "kubernetes")?;
            component(
                format!("spec.secrets.scopes[{index}].storeName"),
                name,
                Some("secretstores"),
            )
        }));
        all
    }

    fn role(&self) -> Role<'_> {
        Role::Configuration
    }
}

fn handlers(field: &str, pipeline: Option<&Pipeline>) -> Vec<Reference> {
    let handlers = pipeline.iter().flat_map(|pipeline| pipeline.handlers.iter().flatten());
    let references = handlers.enumerate().filter_map(|(index, handler)| {
        component(
            format!("{field}.handlers[{index}].name"),
            &handler.name,
            Some("middleware"),
        )
    });
    references.collect()
}

impl Related for MCPServer {
    fn references(&self) -> Vec<Reference> {
        let mut all = scopes(self);
        let Some(middleware) = &self.spec.middleware else {
            return all;
        };
        let mutating = |hook: &MutatingHook| hook.workflow.app_id.clone();
        let plain = |hook: &Hook| hook.workflow.app_id.clone();
        let mut add = |name: &str, ids: Vec<Option<String>>| {
            all.extend(ids.into_iter().enumerate().filter_map(|(index, id)| {
                let field = format!("spec.middleware.{name}[{index}].workflow.appID");
                app(field, id.as_deref().unwrap_or_default())
            }));
        };
        add(
            "beforeCallTool",
            middleware.before_call_tool.iter().flatten().map(mutating).collect(),
        );
        add(
            "afterCallTool",
            middleware.after_call_tool.iter().flatten().map(mutating).collect(),
        );
        add(
            "beforeListTools",
            middleware.before_list_tools.iter().flatten().map(plain).collect(),
        );
        add(
            "afterListTools",
            middleware.after_list_tools.iter().flatten().map(mutating).collect(),
        );
        all
    }

    fn secret_store_field(&self) -> &'static str {
        match self.spec.endpoint.streamable_http {
            Some(_) => "spec.endpoint.streamableHTTP.auth.secretStore",
            None => "spec.endpoint.sse.auth.secretStore",
        }
    }
}

impl Related for Resiliency {
    fn references(&self) -> Vec<Reference> {
        let targets = &self.spec.targets;
        let mut all = scopes(self);
        // With a dot it may be an app of another namespace.
        let apps = targets
            .apps
            .iter()
            .flat_map(|apps| apps.keys())
            .filter(|id| !id.contains('.'));
        all.extend(apps.filter_map(|id| app(format!("spec.targets.apps[{id}]"), id)));
        let components = targets.components.iter().flat_map(|components| components.keys());
        all.extend(components.filter_map(|name| component(format!("spec.targets.components[{name}]"), name, None)));
        all
    }
}

impl Related for Subscription {
    fn references(&self) -> Vec<Reference> {
        let mut all = scopes(self);
        all.extend(component("spec.pubsubname", &self.spec.pubsubname, Some("pubsub")));
        all
    }

    fn role(&self) -> Role<'_> {
        Role::Subscription {
            pubsub: &self.spec.pubsubname,
            topic: &self.spec.topic,
        }
    }
}

impl Related for WorkflowAccessPolicy {
    fn references(&self) -> Vec<Reference> {
        let mut all = scopes(self);
        for (index, rule) in self.spec.rules.iter().flatten().enumerate() {
            let callers = rule.callers.iter().flatten().enumerate();
            all.extend(callers.filter_map(|(caller, callers)| {
                app(format!("spec.rules[{index}].callers[{caller}].appID"), &callers.app_id)
            }));
            let workflows = rule.workflows.iter().flatten().enumerate();
            let workflows = workflows.map(|(at, rule)| (format!("workflows[{at}]"), &rule.requires));
            let activities = rule.activities.iter().flatten().enumerate();
            let activities = activities.map(|(at, rule)| (format!("activities[{at}]"), &rule.requires));
            for (part, requires) in workflows.chain(activities) {
                let requires = requires.iter().flatten().enumerate();
                all.extend(requires.filter_map(|(at, required)| {
                    app(
                        format!("spec.rules[{index}].{part}.requires[{at}].appID"),
                        &required.app_id,
                    )
                }));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn references<K: Related>(object: &Value) -> Vec<(String, String)> {
        let object: K = serde_json::from_str(&object.to_string()).unwrap();
        let name = |target| match target {
            Target::App(id) => format!("app {id}"),
            Target::Component { name, category } => format!("component {name} {}", category.unwrap_or("any")),
        };
        let all = object.references().into_iter();
        all.map(|reference| (reference.field, name(reference.target))).collect()
    }

    #[test]
    fn every_kind_names_what_it_refers_to() {
        let pairs = |pairs: &[(&str, &str)]| -> Vec<_> {
            pairs
                .iter()
                .map(|(field, name)| ((*field).to_owned(), (*name).to_owned()))
                .collect()
        };
        assert_eq!(
            references::<Component>(&json!({"spec": {"type": "state.redis"}, "scopes": ["cart", "till"]})),
            pairs(&[("scopes[0]", "app cart"), ("scopes[1]", "app till")])
        );
        assert_eq!(
            references::<Configuration>(&json!({"spec": {
                "httpPipeline": {"handlers": [{"name": "limit", "type": "middleware.http.ratelimit"}]},
                "appHttpPipeline": {"handlers": [{"name": "auth", "type": "middleware.http.oauth2"}]},
                "secrets": {"scopes": [{"storeName": "kubernetes"}, {"storeName": "vault"}]},
            }})),
            pairs(&[
                ("spec.appHttpPipeline.handlers[0].name", "component auth middleware"),
                ("spec.httpPipeline.handlers[0].name", "component limit middleware"),
                ("spec.secrets.scopes[1].storeName", "component vault secretstores"),
            ])
        );
        assert_eq!(
            references::<MCPServer>(&json!({"spec": {"middleware": {
                "beforeCallTool": [{"workflow": {"workflowName": "w"}}, {"workflow": {"workflowName": "w", "appID": "audit"}}],
                "beforeListTools": [{"workflow": {"workflowName": "w", "appID": "guard"}}],
            }}})),
            pairs(&[
                ("spec.middleware.beforeCallTool[1].workflow.appID", "app audit"),
                ("spec.middleware.beforeListTools[0].workflow.appID", "app guard"),
            ])
        );
        assert_eq!(
            references::<Resiliency>(&json!({"spec": {"targets": {
                "apps": {"cart": {}, "cart.shop": {}}, "components": {"db": {}},
            }}})),
            pairs(&[
                ("spec.targets.apps[cart]", "app cart"),
                ("spec.targets.components[db]", "component db any"),
            ])
        );
        assert_eq!(
            references::<Subscription>(&json!({"spec": {"pubsubname": "bus"}, "scopes": ["cart"]})),
            pairs(&[("scopes[0]", "app cart"), ("spec.pubsubname", "component bus pubsub")])
        );
        assert_eq!(
            references::<WorkflowAccessPolicy>(&json!({"spec": {"rules": [{
                "callers": [{"appID": "cart"}],
                "workflows": [{"name": "w", "requires": [{"appID": "stock"}]}],
                "activities": [{"name": "a", "requires": [{"appID": "till"}]}],
            }]}})),
            pairs(&[
                ("spec.rules[0].callers[0].appID", "app cart"),
                ("spec.rules[0].workflows[0].requires[0].appID", "app stock"),
                ("spec.rules[0].activities[0].requires[0].appID", "app till"),
            ])
        );
    }
}
