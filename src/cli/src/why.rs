mod find;
mod tell;

use fairlead_contract::Paths;
use serde::Serialize;

use crate::answer::{Answer, Exit};
use crate::arguments::Format;
use crate::machine::Machine;

pub(crate) async fn run(paths: Paths, name: &str, format: Format) -> anyhow::Result<Answer> {
    let machine = Machine::observe(paths).await;
    let stories = tell::stories(name, &machine);
    let exit = exit(&stories);
    if format.json {
        return Answer::json(&stories, exit);
    }
    let texts: Vec<_> = stories.iter().map(Story::text).collect();
    Ok(Answer {
        text: texts.join("\n"),
        faults: Vec::new(),
        exit,
    })
}

/// The way of one name, from its declaration to its HTTPS site.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Story {
    subject: String,
    steps: Vec<Step>,
    /// One sentence: what to do next, or what should work.
    conclusion: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Step {
    /// The step in one word.
    step: &'static str,
    done: Done,
    text: String,
}

/// How a step stands. The worst one decides whether the name is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Done {
    /// Worth knowing, and no hindrance.
    Note,
    Yes,
    Unknown,
    No,
}

impl Story {
    fn done(&self) -> Done {
        self.steps
            .iter()
            .map(|step| step.done)
            .max()
            .unwrap_or(Done::Unknown)
    }

    fn text(&self) -> String {
        let mut text = format!("{}\n", self.subject);
        for Step {
            step,
            done,
            text: told,
        } in &self.steps
        {
            let mark = match done {
                Done::Note => '·',
                Done::Yes => '✓',
                Done::Unknown => '?',
                Done::No => '✗',
            };
            text += &format!("  {mark} {step:11} {told}\n");
        }
        text + &self.conclusion + "\n"
    }
}

fn exit(stories: &[Story]) -> Exit {
    match stories.iter().map(Story::done).max() {
        Some(Done::Yes | Done::Note) => Exit::Fine,
        Some(Done::No) => Exit::Wrong,
        Some(Done::Unknown) | None => Exit::Unknown,
    }
}
