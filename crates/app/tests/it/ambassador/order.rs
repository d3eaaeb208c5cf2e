//! Rule 2.2: in which order groups are tried.

use expect_test::expect;

use super::Rig;

const OBJECTS: [&str; 12] = [
    "Mapping a-prefix: { prefix: /p/, service: $a }",
    "Mapping z-longer: { prefix: /p/q, service: $b }",
    "Mapping a-more: { prefix: /p/, headers: { x-h: a-very-long-value-that-says-a-lot }, hostname: order.example, method: GET, service: $c }",
    "Mapping regex: { prefix: '/p/[a-z]+', prefix_regex: true, service: $c }",
    "Mapping exact: { prefix: /e/x, prefix_exact: true, service: $a }",
    "Mapping prefix: { prefix: /e/xyz, service: $b }",
    "Mapping header: { prefix: /h/, headers: { x-a: '1' }, service: $a }",
    "Mapping headers: { prefix: /h/, headers: { x-a: '1', x-b: '1' }, service: $b }",
    "Mapping query: { prefix: /h/, headers: { x-a: '1' }, query_parameters: { q: '1' }, service: $c }",
    "Mapping low: { prefix: /low/long/prefix/, precedence: -1, service: $a }",
    "Mapping high: { prefix: /low/, service: $b }",
    "Mapping method: { prefix: /h/, method: GET, service: $c }",
];

const REQUESTS: [&str; 10] = [
    // A longer prefix beats whatever else is said, and the text of a regular expression counts as a prefix.
    "GET //order.example/p/ x-h=a-very-long-value-that-says-a-lot",
    "GET //order.example/p/q x-h=a-very-long-value-that-says-a-lot",
    "GET /p/zzz",
    "GET /e/x",
    "GET /e/xyz",
    "GET /h/ x-a=1",
    "GET /h/ x-a=1 x-b=1",
    "GET /h/?q=1 x-a=1",
    "GET /low/long/prefix/",
    "GET /h/",
];

/// Neither names nor the order of arrival matter.
#[test]
fn order_is_made_of_what_is_written_alone() {
    let answers = |objects: &[&str]| {
        let rig = Rig::start(objects);
        rig.answers(rig.nuncio.gateway(), &REQUESTS)
    };
    let mut objects = OBJECTS;
    let expected = answers(&objects);
    expect![[r#"
        GET //order.example/p/ x-h=a-very-long-value-that-says-a-lot -> 200 c /
        GET //order.example/p/q x-h=a-very-long-value-that-says-a-lot -> 200 c /p/q
        GET /p/zzz -> 200 c /p/zzz
        GET /e/x -> 200 a /
        GET /e/xyz -> 200 b /
        GET /h/ x-a=1 -> 200 a /
        GET /h/ x-a=1 x-b=1 -> 200 b /
        GET /h/?q=1 x-a=1 -> 200 c /
        GET /low/long/prefix/ -> 200 b /long/prefix/
        GET /h/ -> 200 c /
    "#]]
    .assert_eq(&expected);
    objects.reverse();
    assert_eq!(answers(&objects), expected);
    let renamed: Vec<String> = objects
        .iter()
        .enumerate()
        .map(|(number, object)| {
            let (_, spec) = object.split_once(": ").expect("a spec");
            format!("Mapping n{}: {spec}", (number * 5) % 12)
        })
        .collect();
    let renamed: Vec<&str> = renamed.iter().map(String::as_str).collect();
    assert_eq!(answers(&renamed), expected);
}
