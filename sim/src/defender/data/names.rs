//! Apps, people, places and addresses of the simulated tenant. All of them are made up or meant for documentation.

use super::Draw;

/// Apps by the portal's numbers.
pub(super) const APPS: [(u32, &str); 20] = [
    (11161, "Microsoft 365"),
    (20893, "Microsoft Exchange Online"),
    (20892, "Microsoft SharePoint Online"),
    (15600, "Microsoft OneDrive for Business"),
    (28375, "Microsoft Teams"),
    (12260, "Microsoft Azure"),
    (20940, "Active Directory"),
    (22110, "Microsoft Cloud App Security"),
    (20595, "Microsoft Defender for Cloud Apps"),
    (11114, "Salesforce"),
    (10489, "Box"),
    (11627, "Dropbox"),
    (11599, "Amazon Web Services"),
    (33626, "Google Workspace"),
    (14509, "ServiceNow"),
    (11522, "Slack"),
    (10980, "Okta"),
    (25988, "GitHub"),
    (17865, "Workplace"),
    (19688, "Atlassian, Jira = \"Confluence\""),
];

/// Types of activities: category, value of the app, words, and whether people sign in by it.
pub(super) const TYPES: [(&str, &str, &str); 12] = [
    ("EVENT_CATEGORY_LOGIN", "EVENT_AAD_LOGIN", "Log on"),
    ("EVENT_CATEGORY_FAILED_LOGIN", "EVENT_AAD_LOGIN_FAILED", "Failed log on"),
    ("EVENT_CATEGORY_LOGOUT", "EVENT_ADALLOM_LOGOUT", "Log out"),
    ("EVENT_CATEGORY_DOWNLOAD_FILE", "EVENT_O365_SHAREPOINT_DOWNLOAD_FILE", "Download file"),
    ("EVENT_CATEGORY_UPLOAD_FILE", "EVENT_O365_SHAREPOINT_UPLOAD_FILE", "Upload file"),
    ("EVENT_CATEGORY_DELETE_FILE", "EVENT_BOX_DELETE_FILE", "Delete file"),
    ("EVENT_CATEGORY_RUN_COMMAND", "EVENT_O365_EXCHANGE_RUN_COMMAND", "Run command"),
    ("EVENT_CATEGORY_SHARE_FILE", "EVENT_GOOGLE_SHARE_FILE", "Share file"),
    ("EVENT_CATEGORY_CREATE_USER", "EVENT_AAD_CREATE_USER", "Create user"),
    ("EVENT_CATEGORY_ADD_MEMBER_TO_ROLE", "EVENT_AAD_ADD_MEMBER", "Add member to role"),
    ("EVENT_CATEGORY_SEND_MAIL", "EVENT_O365_EXCHANGE_SEND", "Send mail"),
    ("EVENT_CATEGORY_UNSPECIFIED", "EVENT_GENERIC", "Unspecified activity"),
];

pub(super) const PLACES: [(&str, &str); 8] = [
    ("NL", "Utrecht"),
    ("DE", "Köln"),
    ("US", "Austin, TX"),
    ("GB", "Leeds"),
    ("JP", "東京"),
    ("BR", "São Paulo"),
    ("IN", "Pune"),
    ("ZA", "Cape Town"),
];

pub(super) const AGENTS: [(&str, &str); 6] = [
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
        "DESKTOP",
    ),
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
        "DESKTOP",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148",
        "MOBILE",
    ),
    ("Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15", "TABLET"),
    ("python-requests/2.32.3; a=b|c", "OTHER"),
    ("Microsoft BITS/7.8", "OTHER"),
];

pub(super) const FILES: [&str; 8] = [
    "report.xlsx",
    "Q3 budget (final).docx",
    "https://example.sharepoint.com/sites/a/Shared%20Documents/plan.pdf",
    "Grüße aus Köln.txt",
    "顧客名簿.csv",
    "notes",
    ".env",
    "backup-2026.tar.gz",
];

/// The ids of the tenant's policies.
pub(super) const POLICIES: [(&str, &str, &str); 5] = [
    ("62b1b0c0aa11bb22cc33dd55", "Mass download by a single user", "AUDIT"),
    ("5bfd18bfab73c36ba10d38ca", "Honeytoken activity", "ANOMALY_DETECTION"),
    ("5f759b4d106abbe4a504ea5d", "File shared with personal email addresses", "FILE"),
    ("600fe2f4d1a76b7b9c3bd7a1", "Impossible travel", "ANOMALY_DETECTION"),
    ("614b1ca0e9a1b0a3f6b0c1d2", "Log on from a risky IP address", "SESSION"),
];

/// A user, by number: most are ordinary, some are guests, services or have no domain.
pub(super) fn user(draw: &mut Draw) -> String {
    let number = draw.below(500);
    match number % 25 {
        0 => format!("partner{number}_fabrikam.com#EXT#@contoso.onmicrosoft.com"),
        1 => format!("svc-backup-{number}"),
        2 => format!("Ada.O'Neill-{number}@contoso.com"),
        3 => format!("Jürgen.Groß{number}@contoso.example"),
        _ => format!("user{number}@contoso.com"),
    }
}

/// An address meant for documentation.
pub(super) fn address(draw: &mut Draw) -> String {
    let (a, b) = (draw.below(256), draw.below(65_536));
    match draw.below(5) {
        0 => format!("2001:db8::{a:x}:{b:x}"),
        1 => format!("2001:DB8:{b:X}::{a}"),
        2 => format!("192.0.2.{a}"),
        3 => format!("198.51.100.{a}"),
        _ => format!("203.0.113.{a}"),
    }
}
