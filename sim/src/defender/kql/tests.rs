//! Each operator and function of the language, over a table of three rows.

use serde_json::{Value, json};

use super::{Cell, Fact, Table, Type, run};

static EVENTS: Table = Table {
    name: "Events",
    columns: &[
        ("Timestamp", Type::Time),
        ("ReportId", Type::Text),
        ("Number", Type::Int),
        ("Flag", Type::Bool),
        ("Data", Type::Dynamic),
    ],
};

/// 2026-11-01T10:00:00Z in ticks.
const AT: i64 = 17_935_272_000_000_000;

fn facts() -> Vec<Fact> {
    let rows = [
        json!(["2026-11-01T10:00:00.1234567Z", "b", 5, true, {"User": {"Name": "Ann"}, "List": [1, 2]}]),
        json!(["2026-11-01T10:00:00.1234568Z", "a-B", "7", "0", "{\"User\": \"Bob\"}"]),
        json!(["2026-11-01T09:00:00Z", null, null, null, null]),
    ];
    let fact = |(index, row): (i64, &Value)| {
        let cells = EVENTS.columns.iter().zip(row.as_array().unwrap());
        let cells = cells.map(|((_, kind), value)| Cell::new(*kind, Some(value.clone()))).collect();
        Fact { cells, ingested: AT + index, companions: vec![(0, "#DateTimeOffset")] }
    };
    (0..).zip(&rows).map(fact).collect()
}

fn ask(query: &str) -> Result<Vec<Value>, String> {
    let facts = facts();
    let answer = run(query, &[&EVENTS], AT, |_| facts.iter().collect());
    let answer = answer.map_err(|wrong| wrong.to_string())?;
    Ok(answer.rows.into_iter().map(|(_, row)| Value::Object(row)).collect())
}

/// How many of the rows a condition lets through.
#[track_caller]
fn holds(condition: &str, n_rows: usize) {
    let rows = ask(&format!("Events | where {condition}"));
    assert_eq!(rows.map(|rows| rows.len()), Ok(n_rows), "{condition}");
}

#[track_caller]
fn gives(expression: &str, value: Value) {
    let rows = ask(&format!("Events | where ReportId == 'b' | project It = {expression}"));
    assert_eq!(rows, Ok(vec![json!({"It": value})]), "{expression}");
}

#[test]
fn conditions() {
    for (condition, n_rows) in [
        ("true", 3),
        ("ReportId == \"b\"", 1),
        ("ReportId != \"b\"", 2),
        ("strcmp(ReportId, \"a\") > 0 and strcmp(ReportId, 'b') < 0", 1),
        ("ReportId =~ 'A-b'", 1),
        ("ReportId !~ 'A-b'", 2),
        ("ReportId in ('b', \"a-B\")", 2),
        ("ReportId !in ('b')", 2),
        ("ReportId in~ ('B')", 1),
        ("ReportId !in~ ('B', 'A-B')", 1),
        ("ReportId has 'b'", 2),
        ("ReportId !has 'b'", 1),
        ("ReportId has_cs 'b'", 1),
        ("ReportId contains '-b'", 1),
        ("ReportId !contains 'b'", 1),
        ("ReportId contains_cs 'b'", 1),
        ("ReportId startswith 'A'", 1),
        ("ReportId !startswith 'a'", 2),
        ("ReportId endswith 'b'", 2),
        ("ReportId !endswith 'b'", 1),
        ("Number >= 5", 2),
        ("Number <= 5", 1),
        ("Number < 7 or Flag == false", 2),
        ("Number in (5, 7)", 2),
        ("Number == 5.0", 1),
        ("Number != 5", 2),
        ("not(Flag)", 1),
        ("isnull(Number)", 1),
        ("isnotnull(Number)", 2),
        ("isempty(ReportId)", 1),
        ("isnotempty(ReportId)", 2),
        ("isnull(Data)", 1),
        ("Timestamp == datetime(2026-11-01T10:00:00.1234567Z)", 1),
        ("Timestamp > datetime(2026-11-01T10:00:00.1234567Z)", 1),
        ("Timestamp >= datetime(2026-11-01)", 3),
        ("Timestamp == datetime(null)", 0),
        ("Timestamp > ago(1m)", 2),
        ("Timestamp < now() - 30m", 1),
        ("Timestamp + 1h > now(1h)", 2),
        ("ingestion_time() > datetime(2026-11-01 10:00)", 2),
        ("coalesce(ingestion_time(), Timestamp) == now()", 1),
        ("Data.User.Name == 'Ann'", 1),
        ("tostring(Data.List[1]) == '2'", 1),
        ("parse_json(tostring(Data)).User == \"Bob\"", 1),
        ("(\nReportId != 'x' // why: 'not'\n)", 3),
        ("ReportId == @'a-B' or ReportId == \"\\u0062\"", 2),
    ] {
        holds(condition, n_rows);
    }
    holds(&format!("false{}", " or ReportId == 'b'".repeat(500)), 1);
    holds(&format!("ReportId in ({}'b')", "'x', ".repeat(10_000)), 1);
    holds("ReportId in (tolower('B'), 'x')", 1);
}

#[test]
fn functions() {
    for (expression, value) in [
        ("coalesce(Number, 1)", json!(5)),
        ("coalesce('', 'x')", json!("x")),
        ("now()", json!("2026-11-01T10:00:00Z")),
        ("ago(1d)", json!("2026-10-31T10:00:00Z")),
        ("datetime(2026-11-01) - 1ms", json!("2026-10-31T23:59:59.999Z")),
        ("todatetime('2026-11-01T10:00:00.5')", json!("2026-11-01T10:00:00.5Z")),
        ("todatetime('soon')", Value::Null),
        ("tostring(Timestamp)", json!("2026-11-01T10:00:00.1234567Z")),
        ("tostring(25h)", json!("1.01:00:00")),
        ("Timestamp - ago(1h)", json!("01:00:00.1234567")),
        ("toint('12')", json!(12)),
        ("tolong(1.9)", json!(1)),
        ("toint('x')", Value::Null),
        ("tolower('Ä')", json!("ä")),
        ("toupper(ReportId)", json!("B")),
        ("strcat('a', 1, true)", json!("a1true")),
        ("strlen('äö')", json!(2)),
        ("replace_string('a.b.c', '.', '-')", json!("a-b-c")),
        ("iff(Flag, 'yes', 'no')", json!("yes")),
        ("bin(Timestamp, 1h)", json!("2026-11-01T10:00:00Z")),
        ("bin(Number, 2)", json!(4)),
        ("-Number * 2 + 7 % 4", json!(-7)),
        ("7 / 2", json!(3)),
        ("1.5 + 1", json!(2.5)),
        ("@\"a\\\"\"b\"", json!("a\\\"b")),
        ("'a\\n\\'\\\\'", json!("a\n'\\")),
        ("Data.Nothing", Value::Null),
    ] {
        gives(expression, value);
    }
}

#[test]
fn operators() {
    let ids = |query: &str| -> Vec<Value> {
        ask(query).unwrap().iter().map(|row| row["ReportId"].clone()).collect()
    };
    assert_eq!(ids("Events | order by ReportId asc"), [Value::Null, json!("a-B"), json!("b")]);
    assert_eq!(ids("Events | sort by Number"), [json!("a-B"), json!("b"), Value::Null]);
    assert_eq!(ids("Events | sort by Number asc nulls last | take 1"), [json!("b")]);
    assert_eq!(
        ids("Events | order by Flag desc, ReportId asc | limit 2"),
        [json!("b"), json!("a-B")]
    );
    assert_eq!(ask("Events | count"), Ok(vec![json!({"Count": 3})]));
    assert_eq!(
        ask("Events | extend A = 1 | where A == 2 | count | extend B = Count + 1 | where B == 1"),
        Ok(vec![json!({"Count": 0, "B": 1})])
    );
    assert_eq!(
        ask("Events | take 1 | project Id = ReportId, Number, strlen('ab'), Data.List[0]"),
        Ok(vec![json!({"Id": "b", "Number": 5, "Column1": 2, "Column2": 1})])
    );
    assert_eq!(
        ask(
            "Events | extend Number = 1, Old = Number | take 1 | project-away Data, Flag, Timestamp"
        ),
        Ok(vec![json!({"ReportId": "b", "Number": 1, "Old": 5})])
    );
    let shown = ask("Events | take 1").unwrap();
    assert_eq!(shown[0]["Timestamp@odata.type"], "#DateTimeOffset");
}

#[test]
fn what_is_not_known_is_refused() {
    for syntax in [
        "",
        "Events |",
        "| where true",
        "Events | where",
        "Events | where (",
        "Events | where (true",
        "Events | where true)",
        "Events | where (ReportId == 'a' | take 1)",
        "Events | where ReportId ==",
        "Events | where ReportId == 'a' and",
        "Events | where ReportId in ()",
        "Events | where and true",
        "Events | where ReportId == 'a",
        "Events | where ReportId == \"a\nb\"",
        "Events | where Number == 5x",
        "Events | where Timestamp > datetime(soon)",
        "Events | where 1 < Number < 3",
        "Events | take many",
        "Events | take -1",
        "Events | order ReportId",
        "Events | order by",
        "Events | summarize count()",
        "Events | where ReportId == `a`",
        "Events; Events",
        &format!("Events | where {}true", "(".repeat(500)),
        &format!("Events | where true{}", " or true".repeat(501)),
    ] {
        let wrong = ask(syntax).unwrap_err();
        assert!(wrong.starts_with("Syntax error: "), "{syntax}: {wrong}");
    }
    for (semantic, words) in [
        ("Nothing", "table or column expression named 'Nothing'"),
        ("Events | where Nothing == 1", "scalar expression named 'Nothing'"),
        ("Events | where reportid == 'b'", "named 'reportid'"),
        ("Events | project ReportId | where Number == 1", "named 'Number'"),
        ("Events | project-away Nothing", "named 'Nothing'"),
        ("Events | project A = 1, A = 2", "'A' exists already"),
        ("Events | where nothing(1)", "Unknown function: 'nothing'"),
        ("Events | where strlen(1) == 1", "strlen(): function doesn't accept"),
        ("Events | where ReportId > 'a'", "Cannot compare values of types"),
        ("Events | where ago('a') > now()", "ago(): function doesn't accept"),
        ("Events | where iff(1, 2, 3) == 2", "iff(): function doesn't accept"),
        ("Events | where ReportId == 1", "types string and long"),
        ("Events | where Timestamp > 'x'", "types datetime and string"),
        ("Events | where Number in ('1')", "types int and string"),
        ("Events | where Number has 'x'", "types int and string"),
        ("Events | where ReportId", "must be bool, not string"),
        ("Events | where Flag and Number", "needs bool on both sides"),
        ("Events | where Timestamp + Timestamp > now()", "datetime and datetime"),
        ("Events | where ReportId.a == 1", "of type string"),
        ("Events | order by Data", "dynamic type"),
    ] {
        let wrong = ask(semantic).unwrap_err();
        assert!(
            wrong.starts_with("Semantic error: ") && wrong.contains(words),
            "{semantic}: {wrong}"
        );
    }
    let wrong = ask("Events\n| where (true").unwrap_err();
    assert!(wrong.contains("on line [2,14]"), "{wrong}");
}
