//! `docs/cef-mapping.md` is what the mapping's tables print. `UPDATE_EXPECT=1` rewrites it.

use std::fs;

use siem_agent_forwarder::map::describe;

#[test]
fn the_committed_page_is_what_the_tables_say() {
    let path = "../docs/cef-mapping.md";
    let page = describe::markdown();
    #[expect(clippy::disallowed_methods, reason = "a test asks whether to rewrite what it expects")]
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(path, &page).unwrap();
    }
    assert_eq!(fs::read_to_string(path).unwrap_or_default(), page, "UPDATE_EXPECT=1 rewrites it");
}
