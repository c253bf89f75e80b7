//! `metadata.json` of any bytes: an error that names a place, or a schema whose normal form means the same.
#![no_main]

use headwater::schema::Schema;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(schema) = Schema::parse(bytes, "metadata.json") else { return };
    let normal = schema.normalised();
    let again = Schema::parse(normal.as_bytes(), "normal form").expect("the normal form of a schema parses");
    assert_eq!(again.normalised(), normal, "the normal form is stable");
    assert_eq!(again, schema, "the normal form means the same");
});
