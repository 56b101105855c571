//! A call for each of several names.

use tonic::Status;
use tonic_types::StatusExt as _;

use super::error::CommandError;
use crate::text::escape;

/// What came of the calls for several names.
pub struct Outcome<T> {
    /// The replies, in the order of the names that they are for.
    pub replies: Vec<T>,
    /// What failed, by name.
    pub result: Result<(), CommandError>,
}

/// Calls the service for each name, one after the other, and goes on after a name that
/// the service refuses. A connection that is lost ends it: the other calls would fail as
/// well, each after its whole timeout.
///
/// `what` says what was not done, as in "were not completed".
pub async fn for_each<T>(
    names: &[String],
    what: &str,
    mut call: impl AsyncFnMut(&str) -> Result<T, Status>,
) -> Outcome<T> {
    let (mut replies, mut failed) = (Vec::new(), Vec::new());
    let mut left = names.iter();
    while let Some(name) = left.next() {
        match call(name).await {
            Ok(reply) => replies.push(reply),
            Err(status) if names.len() == 1 => {
                let result = Err(status.into());
                return Outcome { replies, result };
            }
            Err(status) => {
                let is_refusal = status.get_error_details().error_info().is_some();
                let error = CommandError::from(status).to_string();
                failed.push(line(name, &error));
                if !is_refusal {
                    failed.extend(left.by_ref().map(|name| line(name, "not tried")));
                }
            }
        }
    }
    let result = if failed.is_empty() {
        Ok(())
    } else {
        let (count, all, lines) = (failed.len(), names.len(), failed.join("\n"));
        let text = format!("{count} of {all} todos {what}\n{lines}");
        Err(CommandError::Other(text))
    };
    Outcome { replies, result }
}

fn line(name: &str, problem: &str) -> String {
    format!("  {}: {}", escape(name), problem.replace('\n', "\n  "))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::error::{Error, FieldProblem};

    fn refusal(name: &str) -> Status {
        Error::from(FieldProblem::new("name", name, "is not a name")).into()
    }

    async fn call(names: &[&str]) -> (Vec<String>, String) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let outcome = for_each(&names, "were not completed", async |name| match name {
            "wrong" => Err(refusal(name)),
            "lost" => Err(Status::new(Code::Unavailable, "no connection")),
            name => Ok(name.to_owned()),
        });
        let outcome = outcome.await;
        let text = outcome.result.err().map(|error| error.to_string());
        (outcome.replies, text.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_refusal_does_not_keep_the_others_from_it() {
        let (done, text) = call(&["a", "wrong", "b", "wrong", "c"]).await;
        assert_eq!(done, ["a", "b", "c"]);
        assert!(
            text.starts_with("2 of 5 todos were not completed\n  wrong: NAME"),
            "{text}"
        );
        assert_eq!(
            call(&["a", "b"]).await,
            (vec!["a".into(), "b".into()], String::new())
        );
    }

    #[tokio::test]
    async fn a_lost_connection_ends_it() {
        let (done, text) = call(&["a", "lost", "b", "c"]).await;
        assert_eq!(done, ["a"]);
        assert!(text.starts_with("3 of 4 todos"), "{text}");
        assert!(text.ends_with("  b: not tried\n  c: not tried"), "{text}");
    }

    #[tokio::test]
    async fn one_name_has_its_error_alone() {
        let (done, text) = call(&["wrong"]).await;
        assert!(
            done.is_empty() && text.starts_with("NAME \"wrong\""),
            "{text}"
        );
    }
}
