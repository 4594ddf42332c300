//! JSON patches that add, and at most rearrange.

use serde::Serialize;
use serde_json::Value;

/// The operations of a patch, in order.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Operations(Vec<Operation>);

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

impl Operations {
    pub fn add(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.0.push(Operation {
            op: "add",
            path: path.into(),
            from: None,
            value: Some(value.into()),
        });
    }

    /// Moves what is at `from`: it is taken out first, then added at `path`.
    pub fn relocate(&mut self, from: impl Into<String>, path: impl Into<String>) {
        self.0.push(Operation {
            op: "move",
            path: path.into(),
            from: Some(from.into()),
            value: None,
        });
    }

    /// Adds to the object at `parent` under a key, which is escaped.
    pub fn add_key(&mut self, parent: &str, key: &str, value: impl Into<Value>) {
        let key = key.replace('~', "~0").replace('/', "~1");
        self.add(format!("{parent}/{key}"), value);
    }

    /// Appends to the list at `list`, which is made when it is `absent`: adding to the end of no list is an error.
    pub fn append(&mut self, list: &str, absent: bool, values: Vec<Value>) {
        if absent {
            if !values.is_empty() {
                self.add(list, values);
            }
            return;
        }
        for value in values {
            self.add(format!("{list}/-"), value);
        }
    }

    #[cfg(test)]
    pub fn paths(&self) -> Vec<&str> {
        self.0.iter().map(|operation| operation.path.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_and_absent_lists_made() {
        let mut operations = Operations::default();
        operations.add_key("/metadata/labels", "dapr.io/a~b", "x");
        operations.append("/l", true, vec![1.into(), 2.into()]);
        operations.append("/m", false, vec![1.into(), 2.into()]);
        operations.append("/n", true, Vec::new());
        assert_eq!(
            operations.paths(),
            ["/metadata/labels/dapr.io~1a~0b", "/l", "/m/-", "/m/-"]
        );
        assert_eq!(
            serde_json::to_value(&operations).unwrap()[1],
            serde_json::json!({"op": "add", "path": "/l", "value": [1, 2]})
        );
    }
}
