//! Shrinks over a model: a run is what its plan says, and takes no time.

use super::*;
use crate::world::recipe::{Branch, Recipe};

const KNOBS: &[Knob] = &[
    Knob { name: "hosts", about: "", default: 8, least: 2, turns: KnobKind::Hosts },
    Knob { name: "work", about: "", default: 1_000, least: 1, turns: KnobKind::Work },
    Knob { name: "seconds", about: "", default: 40, least: 1, turns: KnobKind::Length },
];

/// Twenty faults of four kinds on five hosts.
fn drawn() -> Options {
    let kinds = ["crash", "pause", "suspend", "power-loss"];
    let line = |n: usize| format!("{}.{n:02}s {} h{} for=3s\n", n + 1, kinds[n % 4], n % 5);
    let plan = (0..20).map(line).collect::<String>().parse().unwrap();
    Options { plan: Some(plan), scheduler_seed: Some(1), ..Options::seed(7) }
}

fn shrunk(failing: Options, judge: impl Fn(&Options) -> Judged) -> (Options, Vec<Options>) {
    let mut proposer = Proposer::new(KNOBS, failing, BTreeSet::new());
    let mut proposed = Vec::new();
    while let Some(options) = proposer.propose() {
        proposer.judged(judge(&options));
        proposed.push(options);
        assert!(proposed.len() < 1_000, "it has no end");
    }
    (proposer.best, proposed)
}

fn fails_if(fails: bool) -> Judged {
    if fails { Judged::Fails { idle: BTreeSet::new() } } else { Judged::Holds }
}

fn text(options: &Options) -> String {
    options.plan.as_ref().unwrap().to_string()
}

/// Whether these faults are in the plan, each of a kind and a host.
fn has(options: &Options, needed: &[&str]) -> bool {
    needed.iter().all(|fault| text(options).contains(fault))
}

#[test]
fn two_faults_of_twenty_are_found_in_few_runs_and_become_plain() {
    let needed = ["crash h3", "pause h1"];
    let drawn = drawn();
    assert!(has(&drawn, &needed));
    let (best, proposed) = shrunk(drawn, |options| fails_if(has(options, &needed)));
    let lines: Vec<_> = text(&best).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("0s ") && line.ends_with(" for=10ms")), "{lines:?}");
    assert!(proposed.len() <= 60, "{} runs", proposed.len());
}

#[test]
fn work_comes_first_and_then_kinds_hosts_and_single_faults() {
    let (_, proposed) =
        shrunk(drawn(), |options| fails_if(options.knobs.is_empty() && text(options).lines().count() == 20));
    let faults = |options: &Options| text(options).lines().count();
    let is_work = |options: &&Options| options.knobs.contains_key("work");
    let work = proposed.iter().take_while(is_work).count();
    assert_eq!(work, 10, "1, and each half as far from 1000 as the one before");
    assert_eq!(proposed[0].knobs["work"], 1);
    assert_eq!(proposed[work..][..5].iter().map(faults).collect::<Vec<_>>(), [0, 10, 10, 15, 15]);
    let place = |what: &dyn Fn(&Options) -> bool| proposed.iter().position(what).unwrap();
    let a_host = place(&|options| faults(options) == 16 && !text(options).contains("h0"));
    let fewer_hosts = place(&|options| options.knobs.contains_key("hosts"));
    let one_less = place(&|options| faults(options) == 19);
    let shorter = place(&|options| options.knobs.contains_key("seconds"));
    assert!(work < a_host && a_host < fewer_hosts && fewer_hosts < one_less && one_less < shorter);
}

#[test]
fn other_schedules_are_tried_at_last_for_the_faults_that_are_left() {
    // A second fault hides an order that the third other schedule has without it.
    let lucky = subseed(7, "scheduler/3");
    let judge = |options: &Options| {
        fails_if(
            has(options, &["crash h3"])
                && (has(options, &["pause h1"]) || options.scheduler_seed == Some(lucky)),
        )
    };
    let (best, proposed) = shrunk(drawn(), judge);
    assert_eq!((text(&best).lines().count(), best.scheduler_seed), (1, Some(lucky)), "{}", text(&best));
    let first = proposed.iter().position(|options| options.scheduler_seed != Some(1)).unwrap();
    assert!(
        proposed[first..].iter().all(|options| text(options).lines().count() < 2),
        "the plan has two by then"
    );
    assert!(first > 20);
}

#[test]
fn faults_that_never_began_go_at_once() {
    let idle = |options: &Options| {
        let lines: Vec<_> = text(options).lines().map(str::to_owned).collect();
        (0..lines.len()).filter(|n| !lines[*n].contains(" h3")).collect::<BTreeSet<_>>()
    };
    let mut proposer = Proposer::new(&[], drawn(), idle(&drawn()));
    let first = proposer.propose().unwrap();
    assert_eq!(text(&first).lines().count(), 4);
    proposer.judged(Judged::Fails { idle: idle(&first) });
    assert_eq!(text(&proposer.propose().unwrap()), "", "then nothing at all");
}

#[test]
fn a_threshold_of_work_or_length_is_found_exactly() {
    let is_enough = |options: &Options, name, least, default| {
        options.knobs.get(name).copied().unwrap_or(default) >= least
    };
    let (best, _) = shrunk(drawn(), |options| {
        fails_if(is_enough(options, "work", 333, 1_000) && is_enough(options, "seconds", 11, 40))
    });
    let [work, hosts, seconds] = ["work", "hosts", "seconds"].map(|name| best.knobs[name]);
    assert_eq!((work, hosts, seconds, text(&best).as_str()), (333, 2, 11, ""));
}

#[test]
fn branches_of_a_recipe_are_left_out() {
    let recipe = [(10, 1), (20, 2), (30, 3)]
        .into_iter()
        .fold(Recipe::default(), |recipe, (event, seed)| recipe.branched(Branch { event, seed }));
    let needs = |options: &Options| options.recipe.branches().iter().any(|branch| branch.event == 20);
    let (best, _) = shrunk(Options { recipe, ..drawn() }, |options| fails_if(needs(options)));
    assert_eq!(best.recipe.branches().iter().map(|branch| branch.event).collect::<Vec<_>>(), [20]);
}

#[test]
fn nothing_is_proposed_twice() {
    let (_, proposed) =
        shrunk(drawn(), |options| fails_if(has(options, &["h1 "]) && has(options, &["power-loss"])));
    let keys: BTreeSet<_> = proposed.iter().map(key).collect();
    assert_eq!(keys.len(), proposed.len());
    assert!(proposed.iter().all(|options| options.plan.is_some() && options.seed == 7));
}
