//! The vendored OpenSSL that librdkafka's threads use.

/// Lets OpenSSL live until the process is gone. Call it before a client is made; every maker in this crate does.
///
/// OpenSSL initialises itself at the first use, and then registers a clean-up that `exit` runs. Clients are destroyed by
/// threads of their own (destroying one waits for its brokers' threads), which may still be at it when `main` has returned:
/// they would use what the clean-up frees, and the process would end with SIGSEGV or SIGABRT instead of 0. Waiting for them
/// was rejected: a broker that does not answer would decide how long.
pub fn keep_openssl() {
    // With OPENSSL_INIT_NO_ATEXIT, once.
    openssl_sys::init();
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use rdkafka::ClientConfig;

    use crate::kafka::admin::Admin;
    use crate::kafka::consumer::Consumer;
    use crate::kafka::producer::TransactionalProducer;

    const MAKER: &str = "SLUICE_TEST_MAKER";
    const ALIVE: i32 = 42;
    const GONE: i32 = 43;

    /// Runs in `exit`, after the handlers registered later.
    extern "C" fn look() {
        // SAFETY: no preconditions; tells 0 once OpenSSL has cleaned up, in which case nothing of it is used any more.
        let alive = unsafe { openssl_sys::OPENSSL_init_ssl(0, std::ptr::null()) } == 1;
        // SAFETY: ends the process here.
        unsafe { libc::_exit(if alive { ALIVE } else { GONE }) }
    }

    fn make(maker: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1").set("security.protocol", "ssl").set("ssl.ca.location", "probe");
        match maker {
            "admin" => drop(Admin::new(&config, Duration::from_secs(1)).expect("made")),
            "consumer" => drop(Consumer::new(config.set("group.id", "g")).expect("made")),
            "producer" => {
                config.set("transactional.id", "t").set("delivery.report.only.error", "true");
                drop(TransactionalProducer::new(&config, []).expect("made"));
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn it_is_there_until_the_process_is_gone() {
        if let Ok(maker) = std::env::var(MAKER) {
            // SAFETY: a function without state.
            assert_eq!(unsafe { libc::atexit(look) }, 0);
            make(&maker);
            return;
        }
        for maker in ["admin", "consumer", "producer"] {
            let output = Command::new(std::env::current_exe().expect("named"))
                .args(["--exact", "kafka::ffi::openssl::tests::it_is_there_until_the_process_is_gone"])
                .env(MAKER, maker)
                .output()
                .expect("runs");
            assert_eq!(output.status.code(), Some(ALIVE), "{maker}: {output:?}");
        }
    }
}
