//! Who may submit a kind: `nurl worker --allow`.

use crate::harness::{hub, run, worker};

#[test]
fn a_kind_is_run_for_those_whom_the_worker_allows_and_others_are_told_what_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // The person alice is admitted by hand, under this name.
    let (home, state) = (at("alice"), at("hub"));
    let shown =
        run(&["pass", "show", "--home", &home, "--json"], Some(&hub.ticket), b"").succeeded().events();
    let key = shown[0]["key"].as_str().unwrap();
    let pass = run(&["mesh", "admit", key, "--name", "alice", "--state", &state], None, b"").succeeded();
    run(&["pass", "take", pass.text().trim(), "--home", &home], Some(&hub.ticket), b"").succeeded();

    let tells = "tells=sh -c 'echo $NURL_SUBMITTER_NAME $NURL_SUBMITTER_LEVEL $NURL_SUBMITTER_HOLDER \
                 -$NURL_SUBMITTER_INVITATION-'";
    let allow = ["--handler", tells, "--allow", "tells=alice", "--allow", "tells=member"];
    let _worker = worker(&hub.ticket, &allow);
    let alice = run(&["submit", "--kind", "tells", "--home", &home], Some(&hub.ticket), b"").succeeded();
    assert_eq!(alice.text().trim(), format!("alice submit {key} --"));
    // Its other kinds are open. The first command comes with the pass that it gets, the later ones with slips of it.
    assert_eq!(run(&["submit", "--kind", "echo"], Some(&hub.ticket), b"hi").succeeded().text(), "hi");
    let others = run(&["submit", "--kind", "tells"], Some(&hub.ticket), b"");
    others.failed(9, &["no worker lets you submit `tells`", "needs level member or name alice", "--allow"]);
    let others = run(&["map", "--kind", "tells"], Some(&hub.ticket), b"x\ny\n");
    assert!(others.code == Some(9) && others.stderr.contains("2 of 2 tasks failed"), "{}", others.stderr);
}

#[test]
fn an_allow_that_cannot_be_meant_is_refused_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    for (allow, words) in [
        ("tels=member", ["no kind tels", "--handler tels=COMMAND"]),
        ("echo=Member", ["no level", "name:Member"]),
        ("echo=look", ["submits nothing", "name:look"]),
        ("echo=nurl1abc", ["a key", "nurl mesh list"]),
        ("echo=", ["a name", "1 to 40 bytes"]),
        ("echo", ["KIND=LEVEL", "KIND=KEY"]),
    ] {
        run(&["worker", "--allow", allow], Some(&hub.ticket), b"").failed(2, &words);
    }
}
