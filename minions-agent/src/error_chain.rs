//! Text of an error together with its causes.

use std::error::Error;

/// Returns an error and its causes as one line for people.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn every_cause_follows_its_effect() {
        let layer = |text, cause: Option<Layer>| Layer(text, cause.map(Box::new));
        let error = layer("cannot write", Some(layer("no space", Some(layer("quota", None)))));
        assert_eq!(error_chain(&error), "cannot write: no space: quota");
    }
}
