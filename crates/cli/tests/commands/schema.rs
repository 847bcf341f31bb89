use crate::Folder;

#[test]
fn the_schema_is_json_that_an_editor_can_use() {
    let folder = Folder::new();
    let text = folder.run(["schema"]).with(0).out;
    let schema: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(schema["$schema"].as_str().is_some_and(|url| url.contains("json-schema.org")), "{}", schema["$schema"]);
    let mut references = 0;
    each_reference(&schema, &mut |reference| {
        let pointer = reference.strip_prefix('#').expect("a reference within the schema");
        assert!(schema.pointer(pointer).is_some(), "{reference} leads nowhere");
        references += 1;
    });
    assert!(references > 20, "only {references} references");
    assert_eq!(text, folder.run(["schema"]).with(0).out);
}

fn each_reference(value: &serde_json::Value, f: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", serde_json::Value::String(reference)) => f(reference),
                    _ => each_reference(value, f),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| each_reference(value, f)),
        _ => {}
    }
}
