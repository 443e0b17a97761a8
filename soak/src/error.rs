//! Failures of the run itself, which are not violations.

/// Failure to start or finish a run.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// An operation on a file, socket or process failed.
    #[error("{what}")]
    Io {
        /// Description of the failure.
        what: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The HTTP client for the daemon cannot be built.
    #[error("cannot build the HTTP client")]
    Client(#[from] reqwest::Error),
}

impl SoakError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
