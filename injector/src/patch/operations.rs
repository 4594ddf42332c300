//! JSON patches that add, and at most rearrange.

use serde::Serialize;

/// The operations of a patch, in order: the JSON of the whole patch. Each value is written once, straight from its type, for this
/// is where most of the time of a review would go otherwise.
#[derive(Debug, Clone)]
pub struct Operations(Vec<u8>);

/// Bytes that most patches fit into.
const USUAL_SIZE: usize = 8 << 10;

#[derive(Serialize)]
struct Operation<'a, T: ?Sized> {
    op: &'static str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a T>,
}

impl Default for Operations {
    fn default() -> Self {
        let mut json = Vec::with_capacity(USUAL_SIZE);
        json.extend_from_slice(b"[]");
        Self(json)
    }
}

impl Operations {
    pub fn add<T: Serialize + ?Sized>(&mut self, path: &str, value: &T) {
        self.push(&Operation {
            op: "add",
            path,
            from: None,
            value: Some(value),
        });
    }

    /// Moves what is at `from`: it is taken out first, then added at `path`.
    pub fn relocate(&mut self, from: &str, path: &str) {
        self.push::<()>(&Operation {
            op: "move",
            path,
            from: Some(from),
            value: None,
        });
    }

    /// Adds to the object at `parent` under a key, which is escaped.
    pub fn add_key(&mut self, parent: &str, key: &str, value: &str) {
        let mut path = String::with_capacity(parent.len() + key.len() + 8);
        path.push_str(parent);
        path.push('/');
        for c in key.chars() {
            match c {
                '~' => path.push_str("~0"),
                '/' => path.push_str("~1"),
                other => path.push(other),
            }
        }
        self.add(&path, value);
    }

    /// Appends to the list at `list`, which is made when it is `absent`: adding to the end of no list is an error.
    pub fn append<T: Serialize>(&mut self, list: &str, absent: bool, values: &[T]) {
        if values.is_empty() {
            return;
        }
        if absent {
            self.add(list, values);
            return;
        }
        let end = format!("{list}/-");
        for value in values {
            self.add(&end, value);
        }
    }

    /// The patch.
    pub fn as_json(&self) -> &[u8] {
        &self.0
    }

    fn push<T: Serialize + ?Sized>(&mut self, operation: &Operation<'_, T>) {
        let json = &mut self.0;
        json.pop();
        if json.len() > 1 {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, operation)
            .expect("Kubernetes types have string keys and finite numbers only, and memory takes all that is written");
        json.push(b']');
    }

    #[cfg(test)]
    pub fn paths(&self) -> Vec<String> {
        let operations: Vec<serde_json::Value> = serde_json::from_slice(&self.0).unwrap();
        let path = |operation: &serde_json::Value| operation["path"].as_str().unwrap().to_owned();
        operations.iter().map(path).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_and_absent_lists_made() {
        let mut operations = Operations::default();
        assert_eq!(operations.as_json(), b"[]");
        operations.add_key("/metadata/labels", "dapr.io/a~b", "x");
        operations.append("/l", true, &[1, 2]);
        operations.append("/m", false, &[1, 2]);
        operations.append::<i32>("/n", true, &[]);
        operations.relocate("/a", "/b");
        assert_eq!(
            operations.paths(),
            ["/metadata/labels/dapr.io~1a~0b", "/l", "/m/-", "/m/-", "/b"]
        );
        let json: serde_json::Value = serde_json::from_slice(operations.as_json()).unwrap();
        assert_eq!(json[1], serde_json::json!({"op": "add", "path": "/l", "value": [1, 2]}));
        assert_eq!(json[4], serde_json::json!({"op": "move", "path": "/b", "from": "/a"}));
    }
}
