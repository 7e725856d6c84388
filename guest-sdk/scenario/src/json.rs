//! A TOML table as JSON text: what a policy gets as its configuration.

use std::fmt::Write as _;

use toml::Value;

/// The text of a value.
///
/// # Errors
/// Names what JSON does not have: a date, an infinite number, NaN.
pub(crate) fn text(value: &Value) -> Result<String, String> {
    let mut text = String::new();
    write(&mut text, value)?;
    Ok(text)
}

fn write(out: &mut String, value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => string(out, text),
        Value::Integer(number) => out.push_str(&number.to_string()),
        Value::Float(number) if number.is_finite() => out.push_str(&number.to_string()),
        Value::Float(number) => return Err(format!("JSON has no {number}")),
        Value::Boolean(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Datetime(date) => return Err(format!("JSON has no date like {date}")),
        Value::Array(list) => {
            out.push('[');
            for (at, value) in list.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write(out, value)?;
            }
            out.push(']');
        }
        Value::Table(table) => {
            out.push('{');
            for (at, (key, value)) in table.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                string(out, key);
                out.push(':');
                write(out, value)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}
