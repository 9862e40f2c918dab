//! The system file as a JSON Schema, for editors.

use serde_json::{Map, Value, json};

use crate::keys::{self, Defaulted, Key, Kind, Shape};
use crate::units;

/// Pattern of a name: a DNS label in lower case.
const NAME: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// Returns the schema (JSON Schema 2020-12). It is made from the list of keys that the reader
/// goes by, so that the two agree.
#[must_use]
pub fn schema() -> Value {
    let mut schema = shape(&keys::SYSTEM);
    if let Value::Object(entries) = &mut schema {
        entries.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        entries.insert("title".to_owned(), json!("Evenkeel system file"));
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    let properties: Map<String, Value> =
        shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        shape.keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut value = kind(&key.kind);
    if let Value::Object(entries) = &mut value {
        entries.insert("description".to_owned(), json!(key.doc));
    }
    value
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Text(default) => with_default(json!({ "type": "string" }), default.map(Value::from)),
        Kind::Name => json!({ "type": "string", "pattern": NAME }),
        Kind::Word(words, default) => {
            with_default(json!({ "enum": words }), default.map(Value::from))
        }
        Kind::Integer(bounds, defaulted) => with_default(
            json!({ "type": "integer", "minimum": bounds.min, "maximum": bounds.max }),
            (*defaulted == Defaulted::Yes).then(|| json!(bounds.default)),
        ),
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::Duration(bounds) => with_default(
            json!({ "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h|d))+$" }),
            Some(json!(units::format_duration(bounds.default))),
        ),
        Kind::Size(bounds) => with_default(
            json!({ "type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB))+$" }),
            Some(json!(units::format_size(bounds.default))),
        ),
        Kind::PortRange((first, last)) => with_default(
            json!({ "type": "string", "pattern": "^[0-9]+-[0-9]+$" }),
            Some(json!(format!("{first}-{last}"))),
        ),
        Kind::Texts(min) => {
            json!({ "type": "array", "items": { "type": "string" }, "minItems": min })
        }
        Kind::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Hosts => named(&json!({ "anyOf": [{ "type": "string" }, shape(&keys::HOST)] })),
        Kind::Zones => named(&self::kind(&Kind::Hosts)),
        Kind::Table(table) => shape(table),
        Kind::Named(table) => named(&shape(table)),
        Kind::List(table) => json!({ "type": "array", "items": shape(table), "minItems": 1 }),
    }
}

fn named(value: &Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": { "pattern": NAME },
        "additionalProperties": value,
    })
}

fn with_default(mut value: Value, default: Option<Value>) -> Value {
    if let (Value::Object(entries), Some(default)) = (&mut value, default) {
        entries.insert("default".to_owned(), default);
    }
    value
}
