//! The mapping in words: the tables that map also print `docs/cef-mapping.md`. Nothing is decided here. Pure.

use std::fmt::Write as _;

use super::{
    APPS, Column, Described, activity, alert, cloud_app_event, graph_alert, identity_logon_event,
};
use crate::format::cef::strict;

const OPENING: &str = "# From a record to a line

`[<PRI>]TIME [HOST ]CEF:0|MCAS|SIEM_Agent|VERSION|SIGNATURE|NAME|SEVERITY|EXTENSION`, one line a record, one record a line.
TIME is the event's, in UTC; VERSION is this program's. A record without a usable id or time is counted, logged by kind and not sent.
With `syslog.header: RFC5424` MSGID is SIGNATURE where that is a word of at most 32 letters, digits, `_`, `.` and `-`, else `-`.

The portal's own API (`source.cloudApps`) gives the first two kinds of record below. The other three are the same alerts and activities as Microsoft Graph (`source.graph`) gives them. `siem-forwarder render` reads all five, and the last two also as a stream to Event Hubs has them, so that a SIEM's rules can be tried on them beforehand.

This page is printed from the mapping's own tables: `UPDATE_EXPECT=1 cargo test -p siem-agent-forwarder --test mapping`.
";
const SIGNATURE: &str = "
A signature's words: `_` stands between a small letter or digit and a capital, and between a run of capitals and a capital followed by a small letter; every run of other characters than `A-Z a-z 0-9` becomes one `_`; none stands at the ends; all are capitals, at most 60 (`AnomalousToken` is `ANOMALOUS_TOKEN`).
";
const SOURCES: &str = "
Times of these three are ISO 8601 with `Z` or an offset and up to nine digits of a second, cut to milliseconds. The kind of an `evidence` is the end of its `@odata.type`, whatever its name space; unknown kinds are passed over.
`ActivityObjects` and `RawEventData` are read as JSON and as JSON in a text. A sign-in whose `Application` is `Active Directory` does not belong to Cloud Apps and is left out.
";
const RULES: &str = "
`null`, `\"null\"`, blank text (of nothing but white space and the characters that are not written) and a missing field are the same: absent. Numbers are written as the JSON has them; a field of an unexpected kind counts as absent.
Lists leave out what is absent, except `targetObjects`, which keeps empty names.
An IP address may come with a port, brackets, a zone or blanks around it (`192.0.2.10:51234`, `[2001:db8::7]:443`, `fe80::1%eth0`): the address in it counts, read strictly and written in its canonical form. One of IPv4 that is mapped into IPv6 (`::ffff:192.0.2.10`) is one of IPv4.

Numbers that JSON does not have (`NaN`, `Infinity`) are absent where they are used, and cost nothing elsewhere.

Plain text means, in this order: `<br>`, `</p>` and `</li>` become a space, other tags vanish, entities with their semicolon are decoded, placeholders such as `__siteIcon__` vanish, white space is folded.

First of all control characters other than CR and LF become a space (C0, U+007F, C1, U+2028, U+2029), characters that change the direction of text vanish (U+061C, U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069), and white space at the ends of a value is dropped; then in the header a line break becomes one space and `\\` and `|` are escaped; in the extension `\\`, `=`, CR and LF are.

## Dialects

`dialect: Legacy` writes what the vendor's agent wrote: empty values stay (`dvc= `), and the label of `c6a1` has its quotes.

`dialect: Strict` follows the CEF standard: empty pairs are left out with their labels, no label has quotes, and values are cut to the standard's lengths in bytes, never inside a character.
A value that is not of its key's type is left out with its label: `cn1`, `rt`, `start` and `end` are whole numbers, `dvc` and `src` are of IPv4, `c6a1` is of IPv6.
An `_id` longer than 40 bytes stands in `cs5` (label `eventId`) before any `c6a1`, and `externalId` holds the first 40 hexadecimal digits of its SHA-256.

| value | length |
| --- | --- |
";
const CLOSING: &str = "
## Long lines

A frame (header, record, line feed, and the length before it where there is one) longer than `syslog.maxMessageBytes` is shortened field by field until it fits: `msg`, `cs3`, `requestClientApplication`, NAME, `suser`, `destinationServiceName`, and only then `cs2`, `cs4`, `cs1`, `cn1` and SIGNATURE.
A shortened value ends in `...` and is never cut inside a character or an escape. Where a limit is too small even for that, whole pairs are left out.
`externalId`, `cs5`, times and addresses are never touched; where they and the header alone are longer than the limit, the record is a reject (`message_too_long`), and so is an `_id` of more than 4000 bytes (`too_large`).
";

/// `docs/cef-mapping.md`.
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    section("An activity", &activity::HEADER, &activity::COLUMNS, &mut page);
    section("An alert", &alert::HEADER, &alert::COLUMNS, &mut page);
    table("`idValue` | SIGNATURE", &alert::KINDS, &mut page);
    table("policy's type | SIGNATURE", &alert::POLICY_TYPES, &mut page);
    let (header, columns) = (&graph_alert::HEADER, &graph_alert::COLUMNS);
    section("An alert of Microsoft Graph (`alerts_v2`)", header, columns, &mut page);
    let (header, columns) = (&cloud_app_event::HEADER, &cloud_app_event::COLUMNS);
    section("A row of `CloudAppEvents`", header, columns, &mut page);
    table("`ActionType` | NAME", &cloud_app_event::ACTIONS, &mut page);
    let (header, columns) = (&identity_logon_event::HEADER, &identity_logon_event::COLUMNS);
    section("A row of `IdentityLogonEvents`", header, columns, &mut page);
    page.push_str(SOURCES);
    page.push_str(SIGNATURE);
    page.push_str("\n## Apps\n");
    table("id | written", &APPS, &mut page);
    page.push_str(
        "\nAnother id is written as it is, after `APPID_`.\n\n## Rules for every value\n",
    );
    page.push_str(RULES);
    let header =
        [("VERSION", strict::VERSION), ("SIGNATURE", strict::SIGNATURE), ("NAME", strict::NAME)];
    for (key, length) in header.into_iter().chain(strict::LENGTHS) {
        row(&format!("{key} | {length}"), &mut page);
    }
    page.push_str(CLOSING);
    page
}

fn section<T>(title: &str, header: &Described, columns: &[Column<T>], page: &mut String) {
    let Described { signature, name, severity } = header;
    page.push_str(&format!("\n## {title}\n\n| | |\n| --- | --- |\n"));
    for (part, words) in [("SIGNATURE", signature), ("NAME", name), ("SEVERITY", severity)] {
        row(&format!("{part} | {words}"), page);
    }
    for column in columns {
        let label =
            column.label.map_or_else(String::new, |(key, text)| format!(" (`{key}={text}`)"));
        let left_out = if column.is_left_out { "; the pair is left out otherwise" } else { "" };
        row(&format!("`{}`{label} | {}{left_out}", column.key, column.words), page);
    }
}

fn table(title: &str, rows: &[(&str, &str)], page: &mut String) {
    page.push_str(&format!("\n| {title} |\n| --- | --- |\n"));
    for (key, value) in rows {
        row(&format!("{key} | `{value}`"), page);
    }
}

fn row(cells: &str, page: &mut String) {
    // A string takes whatever is written to it.
    let _ = writeln!(page, "| {cells} |");
}
