//! Who belongs to a mesh: tickets of one level, admission by hand, lists.

use crate::harness::{Running, hub, members, run, worker, write_private};

#[test]
fn a_ticket_of_one_level_permits_that_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let _worker = worker(&hub.ticket, &["--handler", "up=tr a-z A-Z"]);
    let state = dir.path().join("hub");
    let state = state.to_str().unwrap();
    let args = ["mesh", "invite", "--level", "submit", "--keys", "1", "--for", "7d", "--state", state];
    let invited = run(&args, None, b"").succeeded();
    let ticket = invited.text().trim();
    assert!(invited.stderr.contains("1 machines as submit, for 7 days"), "{}", invited.stderr);
    assert_ne!(ticket, hub.ticket);
    let home = dir.path().join("phone");
    let home = home.to_str().unwrap();
    let submit = ["submit", "--kind", "up", "--home", home];
    assert_eq!(run(&submit, Some(ticket), b"by a phone").succeeded().text(), "BY A PHONE");
    let shown = run(&["pass", "show", "--home", home, "--json"], Some(ticket), b"").succeeded().events();
    assert_eq!(shown[0]["level"], "submit");
    // The invitation's one place is the person's: a worker on the same machine is another key.
    let second = ["worker", "--home", home, "--join", "5s"];
    run(&second, Some(ticket), b"").failed(4, &["used-up"]);
    let key = dir.path().join("phone.key");
    let key = key.to_str().unwrap();
    let args = ["mesh", "invite", "--level", "member", "--state", state];
    let member = run(&args, None, b"").succeeded();
    let worker = ["worker", "--key", key, "--join", "20s"];
    run(&worker, Some(member.text().trim()), b"").failed(4, &["says member", "needs worker", "mesh invite"]);
}

#[test]
fn a_mesh_whose_hub_has_neither_ticket_nor_authority_admits_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let key = run(&["key", "new", &at("hub.key"), "--json"], None, b"").succeeded().events();
    let hub_key = key[0]["key"].as_str().unwrap();
    std::fs::create_dir(dir.path().join("blind")).unwrap();
    write_private(&dir.path().join("blind/key"), &std::fs::read(at("hub.key")).unwrap());
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir.path().join("blind"), std::fs::Permissions::from_mode(0o700)).unwrap();
    // The port is known once the hub has bound it, so the first mesh is for a hub that listens nowhere.
    let office = at("office");
    let named = format!("{hub_key}@127.0.0.1:1");
    let made = run(&["mesh", "new", "--hub", &named, "--state", &office, "--json"], None, b"").succeeded();
    let mesh = made.events()[0]["mesh"].as_str().unwrap().to_owned();
    run(&["mesh", "new", "--hub", &named, "--state", &office], None, b"").failed(8, &["has a mesh already"]);

    let blind = at("blind");
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", &blind, "--mesh-id", &mesh, "--json"];
    let hub = Running::start(&args, None);
    let addr = hub.event("ready")["addr"].as_str().unwrap().to_owned();
    let ticket = std::fs::read_to_string(format!("{office}/mesh")).unwrap();
    let mut ticket: nurl::Ticket = ticket.trim().parse().unwrap();
    ticket.hubs[0].addr = addr;
    let ticket = ticket.to_text().unwrap().to_string();

    let file = at("w.key");
    let worker = ["worker", "--key", &file, "--json", "--join", "5s"];
    run(&worker, Some(&ticket), b"").code.filter(|code| *code == 4).expect("nobody without a pass");
    let shown = run(&["pass", "show", "--key", &file, "--json"], Some(&ticket), b"").succeeded().events();
    let key = shown[0]["key"].as_str().unwrap();
    let pass = run(&["mesh", "admit", key, "--name", "laptop", "--state", &office], None, b"").succeeded();
    let pass = pass.text().trim();
    run(&["pass", "take", &pass[..60], "--key", &file], Some(&ticket), b"").failed(2, &["malformed"]);
    run(&["pass", "take", pass, "--home", &at("home")], Some(&ticket), b"")
        .failed(2, &["no such key", "--key"]);
    let taken = run(&["pass", "take", pass, "--key", &file], Some(&ticket), b"").succeeded();
    assert!(taken.text().contains("laptop") && taken.text().contains("admitted by hand"), "{}", taken.text());
    Running::start(&worker, Some(&ticket)).event("ready");
}

/// A mesh whose hub can read nothing: its hub, and the folder with the authority's key.
fn office(dir: &std::path::Path, more: &[&str]) -> (Running, String) {
    use std::os::unix::fs::PermissionsExt as _;
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (blind, office) = (at("blind"), at("office"));
    std::fs::create_dir(&blind).unwrap();
    std::fs::set_permissions(&blind, std::fs::Permissions::from_mode(0o700)).unwrap();
    let key = run(&["key", "new", &format!("{blind}/key"), "--json"], None, b"").succeeded().events();
    let named = format!("{}@127.0.0.1:1", key[0]["key"].as_str().unwrap());
    let new = [&["mesh", "new", "--hub", &named, "--state", &office, "--json"], more].concat();
    let made = run(&new, None, b"").succeeded();
    let mesh = made.events()[0]["mesh"].as_str().unwrap().to_owned();
    let args = ["hub", "--listen", "127.0.0.1:0", "--state", &blind, "--mesh-id", &mesh, "--json"];
    let hub = Running::start(&args, None);
    // The port is known once the hub has bound it.
    let file = format!("{office}/mesh");
    let mut ticket: nurl::Ticket = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    ticket.hubs[0].addr = hub.event("ready")["addr"].as_str().unwrap().to_owned();
    write_private(std::path::Path::new(&file), ticket.to_text().unwrap().as_bytes());
    (hub, office)
}

#[test]
fn machines_enrol_through_a_hub_that_can_read_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (_hub, office) = office(dir.path(), &[]);
    let home = dir.path().join("home").to_str().unwrap().to_owned();
    let serve = ["mesh", "serve", "--state", &office, "--home", &home, "--json"];
    let mut issuer = Running::start(&serve, None);
    let issuer_key = issuer.event("ready")["key"].as_str().unwrap().to_owned();
    run(&serve, None, b"").failed(8, &["issues the mesh's passes already"]);
    let invited = run(&["mesh", "invite", "--keys", "2", "--state", &office], None, b"").succeeded();
    let ticket = invited.text().trim().to_owned();
    let worker = worker(&ticket, &["--handler", "up=tr a-z A-Z"]);
    let phone = dir.path().join("phone").to_str().unwrap().to_owned();
    let submit = ["submit", "--kind", "up", "--home", &phone];
    assert_eq!(run(&submit, Some(&ticket), b"by two").succeeded().text(), "BY TWO");
    let late = dir.path().join("late.key").to_str().unwrap().to_owned();
    let third = ["worker", "--key", &late, "--join", "5s"];
    run(&third, Some(&ticket), b"").failed(4, &["used-up"]);
    // The phone knows where its pass came from.
    let status = ["status", "--home", &phone];
    let shown = run(&[&status[..], &["--json"]].concat(), Some(&ticket), b"").succeeded().events();
    assert_eq!(shown[0]["self"]["issuer"]["key"], issuer_key.as_str(), "{shown:?}");
    assert_eq!(shown[0]["self"]["issuer"]["hub"], shown[0]["hubs"][0]["key"]);
    assert!(shown[0]["self"]["pass_until"].is_u64() && shown[0]["self"]["clock_ahead_s"].is_null());
    let said = run(&status, Some(&ticket), b"").succeeded();
    assert!(said.text().contains("through the hub 127.0.0.1:"), "{}", said.text());
    // Whom it enrolled, it remembers.
    issuer.signal("TERM");
    assert!(issuer.ended().success());
    let listed = run(&["mesh", "list", "--state", &office, "--json"], None, b"").succeeded().events();
    let keys: Vec<_> = listed.iter().filter(|line| line["event"] == "admitted").collect();
    assert_eq!(keys.len(), 2, "{listed:?}");
    assert!(keys.iter().any(|line| line["key"] == worker.key.as_str()), "{listed:?}");
    // Without an issuer those with a pass go on, and nobody else gets in.
    assert_eq!(run(&submit, Some(&ticket), b"alone").succeeded().text(), "ALONE");
    run(&third, Some(&ticket), b"").failed(4, &["no-issuer"]);
    let issuer = Running::start(&serve, None);
    issuer.event("ready");
    run(&third, Some(&ticket), b"").failed(4, &["used-up"]);
    let invited = run(&["mesh", "invite", "--keys", "1", "--state", &office], None, b"").succeeded();
    Running::start(&[&third[..], &["--json"]].concat(), Some(invited.text().trim())).event("ready");
}

#[test]
fn a_passphrase_seals_the_authoritys_key_and_a_wrong_one_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (right, wrong, empty) = (at("right"), at("wrong"), at("empty"));
    for (file, text) in [(&right, "correct horse\n"), (&wrong, "battery\n"), (&empty, "\n")] {
        write_private(std::path::Path::new(file), text.as_bytes());
    }
    let (_hub, office) = office(dir.path(), &["--passphrase-file", &right]);
    let file = || std::fs::read_to_string(format!("{office}/authority")).unwrap();
    let sealed = file();
    assert!(sealed.starts_with("nurlsealed1"), "{sealed}");
    let invite = ["mesh", "invite", "--state", &office];
    let by = |passphrase: &[&str], input: &[u8]| run(&[&invite[..], passphrase].concat(), None, input);
    by(&[], b"").failed(10, &["is sealed", "--passphrase-file", "NURL_PASSPHRASE"]);
    by(&["--passphrase-file", &wrong], b"").failed(10, &["wrong passphrase", "nothing was done"]);
    by(&["--passphrase-file", &empty], b"").failed(10, &["1 to 1024 bytes"]);
    assert!(by(&["--passphrase-file", "-"], b"correct horse\n").succeeded().text().starts_with("nurlmesh1"));
    let home = at("home");
    let serve = ["mesh", "serve", "--state", &office, "--home", &home, "--json"];
    run(&serve, None, b"").failed(10, &["is sealed"]);
    let serve = [&serve[..], &["--passphrase-file", &right]].concat();
    Running::start(&serve, None).event("ready");

    let change = ["mesh", "passphrase", "--state", &office];
    let changed = |more: &[&str], input: &[u8]| run(&[&change[..], more].concat(), None, input);
    changed(&["--passphrase-file", &wrong, "--remove"], b"").failed(10, &["wrong passphrase"]);
    assert_eq!(file(), sealed, "nothing was written");
    changed(&["--passphrase-file", "-", "--new-passphrase-file", "-"], b"correct horse\nstaple\n")
        .succeeded();
    by(&["--passphrase-file", &right], b"").failed(10, &["wrong passphrase"]);
    changed(&["--passphrase-file", "-", "--remove"], b"staple").succeeded();
    assert!(file().starts_with("nurl-secret-1"));
    by(&[], b"").succeeded();
    changed(&["--new-passphrase-file", &right], b"").succeeded();
    by(&["--passphrase-file", &right], b"").succeeded();
}

#[test]
fn the_list_names_those_that_came_by_an_invitation() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path());
    let worker = worker(&hub.ticket, &[]);
    let state = dir.path().join("hub");
    let list = ["mesh", "list", "--state", state.to_str().unwrap(), "--json"];
    let listed = run(&list, None, b"").succeeded().events();
    hub.process.kill();
    assert_eq!(listed, run(&list, None, b"").succeeded().events(), "also while the hub runs");
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0]["key"].as_str(), &listed[0]["level"]), (Some(&*worker.key), &"worker".into()));
    assert_eq!(listed[0]["invitation"].as_str().map(str::len), Some(16));
    let empty = dir.path().join("empty");
    let empty = ["mesh", "list", "--state", empty.to_str().unwrap()];
    run(&empty, None, b"").failed(8, &["no authority's key", "--state"]);
}

#[test]
fn a_revoked_worker_ends_and_stays_out_while_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("hub");
    let state = state.to_str().unwrap();
    let up = ["--handler", "up=tr a-z A-Z"];
    let lost_key = dir.path().join("lost.key");
    let lost_args = [&up[..], &["--key", lost_key.to_str().unwrap()]].concat();
    let (_stays, mut lost) = (worker(&hub.ticket, &up), worker(&hub.ticket, &lost_args));
    let submit = ["submit", "--kind", "up"];
    assert_eq!(run(&submit, Some(&hub.ticket), b"before").succeeded().text(), "BEFORE");
    let revoked = run(&["mesh", "revoke", &lost.key, "--state", state, "--json"], None, b"").succeeded();
    assert_eq!(revoked.events()[0]["key"].as_str(), Some(&*lost.key));
    assert_eq!(lost.process.ended().code(), Some(4), "{}", lost.process.stderr());
    assert!(lost.process.stderr().contains("revoked"), "{}", lost.process.stderr());
    let workers: Vec<_> = members(&hub.ticket).into_iter().map(|member| member["key"].to_string()).collect();
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert_eq!(run(&submit, Some(&hub.ticket), b"after").succeeded().text(), "AFTER");
    let again = [&["worker", "--join", "5s"], &lost_args[..]].concat();
    run(&again, Some(&hub.ticket), b"").failed(4, &["revoked"]);
    // Its key alone is out, and comes back by hand only.
    let pass = run(&["mesh", "admit", &lost.key, "--state", state], None, b"").succeeded();
    let take = ["pass", "take", pass.text().trim(), "--key", lost_key.to_str().unwrap()];
    run(&take, Some(&hub.ticket), b"").succeeded();
    worker(&hub.ticket, &lost_args);
}

#[test]
fn a_rotation_ends_nothing_and_tickets_old_and_new_lead_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path());
    let state = dir.path().join("hub");
    let state = state.to_str().unwrap();
    let up = ["--handler", "up=tr a-z A-Z"];
    let worker = worker(&hub.ticket, &up);
    let rotate = ["mesh", "rotate", "--state", state];
    let rotated = run(&[&rotate[..], &["--json"]].concat(), None, b"").succeeded().events();
    assert_eq!((&rotated[0]["generation"], &rotated[0]["by_hub"]), (&1.into(), &true.into()));
    assert_eq!(worker.process.event("rotated")["generation"], 1);
    let said = run(&rotate, None, b"").succeeded();
    assert!(said.text().contains("secret 2") && said.text().contains("7 days"), "{}", said.text());
    assert_eq!(worker.process.event("rotated")["generation"], 2);

    let ticket = std::fs::read_to_string(dir.path().join("hub/mesh")).unwrap();
    let parsed: nurl::Ticket = ticket.trim().parse().unwrap();
    assert_eq!((parsed.generation, parsed.previous.is_some()), (2, true));
    let submit = ["submit", "--kind", "up"];
    for ticket in [&*hub.ticket, ticket.trim()] {
        assert_eq!(run(&submit, Some(ticket), b"after").succeeded().text(), "AFTER");
        let status = run(&["status", "--json"], Some(ticket), b"").succeeded().events();
        assert_eq!(status[0]["self"]["generation"], 2);
    }
    let invited = run(&["mesh", "invite", "--state", state], None, b"").succeeded();
    let invited: nurl::Ticket = invited.text().trim().parse().unwrap();
    assert_eq!((invited.generation, &invited.current), (2, &parsed.current));

    // A command that was cut short before it wrote the ticket: the hub knows better.
    hub.process.kill();
    crate::harness::write_private(&dir.path().join("hub/mesh"), hub.ticket.as_bytes());
    let again = crate::harness::hub(dir.path());
    let printed: nurl::Ticket = again.ticket.parse().unwrap();
    assert_eq!((printed.generation, printed.current), (2, parsed.current));
    let list = ["mesh", "list", "--state", state];
    let listed = run(&list, None, b"").succeeded();
    assert!(listed.stderr.contains("The mesh has secret 2."), "{}", listed.stderr);
}

#[test]
fn a_revoked_invitation_admits_nobody_and_whom_it_admitted_is_out() {
    let dir = tempfile::tempdir().unwrap();
    let hub = hub(dir.path());
    let state = dir.path().join("hub");
    let state = state.to_str().unwrap();
    let invited = run(&["mesh", "invite", "--state", state], None, b"").succeeded();
    let ticket = invited.text().trim();
    let mut theirs = worker(ticket, &["--key", dir.path().join("a.key").to_str().unwrap()]);
    let ours = worker(&hub.ticket, &[]);
    let parsed: nurl::Ticket = ticket.parse().unwrap();
    let id = parsed.invitation.unwrap().terms.id.to_string();
    run(&["mesh", "revoke", "--invitation", &id, "--state", state], None, b"").succeeded();
    assert_eq!(theirs.process.ended().code(), Some(4));
    let late_key = dir.path().join("b.key");
    let late = ["worker", "--join", "5s", "--key", late_key.to_str().unwrap()];
    run(&late, Some(ticket), b"").failed(4, &["revoked"]);
    let args = ["ping", &ours.key, "-c", "1"];
    run(&args, Some(&hub.ticket), b"").succeeded();
    run(&["mesh", "revoke", "--state", state], None, b"").code.filter(|code| *code == 2).expect("whom?");
}
