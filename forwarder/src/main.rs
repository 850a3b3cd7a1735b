//! The program: everything is in the library, beginning with `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Failpoints exist in test builds only; elsewhere this reads nothing.
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    siem_agent_forwarder::cli::main()
}
