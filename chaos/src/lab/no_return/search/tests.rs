use super::*;

/// Searches a run of `last` events in which a continuation holds if `holds` says so. Returns the search and its length.
fn searched(last: u64, holds: impl Fn(Probe) -> bool) -> (Search, u32) {
    let mut search = Search::new(last, 8);
    let mut runs = 0;
    while let Some(probe) = search.propose() {
        assert!(probe.event <= last, "{probe:?} is behind the end");
        search.judged(probe, holds(probe));
        runs += 1;
        assert!(runs < 2_000, "it comes to no end");
    }
    (search, runs)
}

fn border(saved: u64) -> Border {
    Border { saved: Some(saved), lost: saved + 1 }
}

#[test]
fn each_border_is_found() {
    for last in [1, 2, 3, 10, 57] {
        for saved in 0..=last {
            let (search, _) = searched(last, |probe| probe.event <= saved);
            assert_eq!(search.border(), border(saved), "of {last}");
        }
    }
}

#[test]
fn a_long_run_takes_fewer_runs_than_the_default_limit() {
    for saved in [0, 77_777, 500_000, 999_999, 1_000_000] {
        let (search, runs) = searched(1_000_000, |probe| probe.event <= saved);
        assert_eq!(search.border(), border(saved));
        assert!(runs <= super::super::RUNS, "{runs} runs for {saved}");
    }
}

#[test]
fn a_run_that_is_saved_nowhere_takes_a_few_runs_at_the_beginning() {
    let (search, runs) = searched(1_000, |_| false);
    assert_eq!((search.border().saved, runs), (None, 24));
}

#[test]
fn a_run_that_is_saved_at_its_last_event_is_lost_by_the_failure_itself() {
    let (search, _) = searched(1_000, |_| true);
    assert_eq!(search.border(), border(1_000));
    assert_eq!(search.tally(1_000), Tally { tried: 8, held: 8 });
}

#[test]
fn the_border_has_a_full_tally_before_it_and_a_confirmed_one_behind_it() {
    let (search, _) = searched(1_000, |probe| probe.event <= 300 && probe.number % 3 == 0);
    assert_eq!(search.border(), border(300));
    assert_eq!(search.tally(300), Tally { tried: 8, held: 2 });
    assert_eq!(search.tally(301), Tally { tried: 24, held: 0 });
}

#[test]
fn luck_that_only_more_continuations_show_moves_the_border() {
    // From 300 on each twentieth continuation holds, from 310 on none.
    let holds = |probe: Probe| probe.event <= 300 || probe.event <= 310 && probe.number == 20;
    let (search, _) = searched(1_000, holds);
    assert_eq!(search.border(), border(310));
}

#[test]
fn a_run_that_seems_lost_for_a_while_is_searched_behind_that() {
    // The bisection comes to 406 before the hole from 400 to 403, so only a look behind the border finds the rest.
    let holds = |probe: Probe| probe.event < 400 || (404..406).contains(&probe.event);
    let (search, _) = searched(1_000, holds);
    assert_eq!(search.border(), border(405));
    // Far behind the border, where the bisection hasn't been.
    let holds = |probe: Probe| probe.event < 500 || (560..600).contains(&probe.event);
    let (search, _) = searched(1_000, holds);
    assert_eq!(search.border(), border(599));
}

#[test]
fn an_event_of_whose_continuations_only_one_holds_is_saved() {
    for number in 1..=8 {
        let (search, _) = searched(500, |probe| probe.event <= 123 && probe.number == number);
        assert_eq!(search.border(), border(123), "the continuation {number} holds");
    }
}
