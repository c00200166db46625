//! What differs between two sets of settings, key by key: a resume with other settings is refused with this list.

use serde_json::Value;

/// One line for every leaf that differs, as `a.b: 1 before, 2 now`, in the order of the keys. A key on one side alone is `absent` on the other.
///
/// ```
/// let old = serde_json::json!({"lr": 0.1, "schedule": {"floor": 0.0}});
/// let new = serde_json::json!({"lr": 0.2, "schedule": {"floor": 0.0}});
/// assert_eq!(whitebox_train::diff(&old, &new), ["lr: 0.1 before, 0.2 now"]);
/// ```
pub fn diff(old: &Value, new: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", Some(old), Some(new), &mut lines);
    lines
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, lines: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(old)), Some(Value::Object(new))) = (old, new) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            walk(&path, old.get(key), new.get(key), lines);
        }
        return;
    }
    let show = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
    lines.push(format!("{path}: {} before, {} now", show(old), show(new)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_changes_additions_and_removals_by_path() {
        let old = json!({"a": {"b": 1, "c": [1, 2], "same": null}, "gone": "x"});
        let new = json!({"a": {"b": 2, "c": [1, 3], "same": null}, "new": {"k": true}});
        let expected = [
            "a.b: 1 before, 2 now",
            "a.c: [1,2] before, [1,3] now",
            "gone: \"x\" before, absent now",
            "new: absent before, {\"k\":true} now",
        ];
        assert_eq!(diff(&old, &new), expected);
        assert!(diff(&old, &old).is_empty());
    }
}
