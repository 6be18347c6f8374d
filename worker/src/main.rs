//! `sluice-worker --config FILE`: runs the engines of one resource until SIGTERM.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sluice_worker::run()
}
