use super::super::options::MAX_ERROR_TEXT_LEN;
use super::*;
use proptest::prelude::*;

fn key() -> impl Strategy<Value = PublicKey> {
    any::<[u8; 32]>().prop_map(PublicKey::from_bytes)
}

fn task() -> impl Strategy<Value = TaskId> {
    any::<[u8; 16]>().prop_map(TaskId::from_bytes)
}

fn token() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), key()).prop_map(|(counter, owner)| Epoch { counter, owner })
}

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn error() -> impl Strategy<Value = JobError> {
    prop_oneof![
        (any::<bool>(), ".{0,40}").prop_map(|(retriable, message)| JobError::Failed { retriable, message }),
        ".{0,40}".prop_map(JobError::Panicked),
        Just(JobError::TimedOut),
        ".{0,40}".prop_map(JobError::UnknownKind),
        ".{0,40}".prop_map(JobError::Infeasible),
        Just(JobError::Cancelled),
        Just(JobError::Deadline),
        (any::<u32>(), ".{0,40}").prop_map(|(failures, last)| JobError::DeadLetter { failures, last }),
        token().prop_map(|current| JobError::Fenced { current }),
        Just(JobError::Conflict),
        any::<[u8; 32]>().prop_map(|hash| JobError::Settled { hash }),
        any::<u64>().prop_map(|len| JobError::TooLarge { len }),
        (any::<u32>(), ".{0,40}").prop_map(|(workers, names)| JobError::Lost { workers, names }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let outcome = prop_oneof![bytes(50).prop_map(Ok), error().prop_map(Err)];
    (outcome, token(), key(), any::<bool>()).prop_map(|(outcome, token, by, settled)| {
        let mut record = Record::new(outcome, token, by);
        if settled {
            record.outcome = None;
        }
        record
    })
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        (0u64..1 << 40).prop_map(|ms| Reason::Busy { retry_after: Duration::from_millis(ms) }),
        Just(Reason::UnknownKind),
        Just(Reason::Misrouted),
        key().prop_map(|runner| Reason::Elsewhere { runner }),
        Just(Reason::Conflict),
        any::<[u8; 32]>().prop_map(|hash| Reason::Settled { hash }),
        error().prop_map(|error| Reason::Failed { error }),
        Just(Reason::Unknown),
        Just(Reason::HandedBack),
    ]
}

fn submit() -> impl Strategy<Value = Message> {
    let names = (task(), key(), ".{0,16}", bytes(40), bytes(200));
    let numbers = (any::<u32>(), any::<u16>(), any::<u8>(), 0u8..3, 0u64..86_400_000);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (names, numbers, flags, proptest::option::of(task())).prop_map(
        |(names, numbers, (ask, force, anywhere), parent)| {
            let (task, submitter, kind, key, payload) = names;
            let (attempt, reach, hops, priority, life) = numbers;
            Message::Submit(Submit {
                large: false,
                task,
                attempt,
                reach,
                hops,
                submitter,
                kind,
                key,
                priority: Priority::from_wire(priority),
                life: Duration::from_millis(life),
                ask,
                force,
                parent,
                anywhere,
                warrant: None,
                payload,
            })
        },
    )
}

fn replica() -> impl Strategy<Value = Message> {
    let submitters = proptest::collection::vec(key(), 0..MAX_WAITERS);
    (task(), any::<[u8; 32]>(), submitters, ".{0,16}", bytes(40), 0u64..80_000_000, record()).prop_map(
        |(task, digest, submitters, kind, key, keep, record)| {
            let keep = Duration::from_millis(keep);
            Message::Replica(RecordCopy { task, digest, submitters, kind, key, keep, record })
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let beat = (task(), any::<u32>(), any::<Option<u64>>()).prop_map(|(task, attempt, finished)| Beat {
        task,
        attempt,
        finished,
    });
    prop_oneof![
        submit(),
        replica(),
        (task(), any::<u32>(), any::<u64>(), token(), any::<Option<(u16, bool)>>()).prop_map(
            |(task, attempt, boot, token, lanes)| {
                let lanes = lanes.map(|(count, pure)| Lanes { count, pure });
                Message::Accepted { task, attempt, boot, token, lanes }
            }
        ),
        (any::<u64>(), proptest::collection::vec(beat, 0..20), any::<bool>())
            .prop_map(|(boot, beats, answer)| Message::Beats { boot, beats, answer }),
        Just(Message::Listening {}),
        (task(), any::<u32>(), bytes(MAX_PROGRESS_LEN)).prop_map(|(task, attempt, note)| Message::Progress {
            task,
            attempt,
            note
        }),
        (task(), any::<u32>(), reason()).prop_map(|(task, attempt, reason)| Message::Refused(Refused {
            task,
            attempt,
            reason
        })),
        (task(), any::<u32>(), record()).prop_map(|(task, attempt, record)| Message::Outcome {
            task,
            attempt,
            record
        }),
        (task(), any::<[u8; 32]>()).prop_map(|(task, hash)| Message::Ack { task, hash }),
        (task(), any::<u32>()).prop_map(|(task, attempt)| Message::Fetch { task, attempt }),
        task().prop_map(|task| Message::Cancel { task }),
        (task(), any::<u32>()).prop_map(|(task, attempt)| Message::Withdraw { task, attempt }),
        (task(), any::<[u8; 32]>()).prop_map(|(task, digest)| Message::Ask { task, digest }),
        (task(), any::<bool>(), proptest::option::of(record()))
            .prop_map(|(task, running, record)| Message::Known(Known { task, running, record })),
    ]
}

proptest! {
    #[test]
    fn every_message_reads_back(message in message()) {
        prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn cut_or_changed_messages_never_panic(
        message in message(), cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), to in any::<u8>(),
    ) {
        let bytes = message.encode();
        let _ = Message::decode(&bytes.slice(..cut.index(bytes.len())));
        let mut changed = bytes.to_vec();
        let at = at.index(changed.len());
        changed[at] = to;
        let _ = Message::decode(&changed.into());
    }

    #[test]
    fn arbitrary_bytes_never_panic(kind in 0u8..16, header in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut bytes = vec![kind, header.len() as u8, 0];
        bytes.extend(header);
        let _ = Message::decode(&bytes.into());
    }
}

#[test]
fn a_changed_result_does_not_pass_for_the_original() {
    let by = PublicKey::from_bytes([1; 32]);
    let record = Record::new(Ok(Bytes::from_static(b"result")), Epoch { counter: 1, owner: by }, by);
    let message = Message::Outcome { task: TaskId::from_bytes([0; 16]), attempt: 0, record };
    let mut bytes = message.encode().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(Message::decode(&bytes.into()), Err(MessageError::Inconsistent));
}

#[test]
fn fields_of_a_later_version_are_ignored() {
    let mut header = minicbor::to_vec((TaskId::from_bytes([3; 16]), 7u32, "a later field")).unwrap();
    let mut bytes = vec![9, header.len() as u8, 0];
    bytes.append(&mut header);
    let expected = Message::Fetch { task: TaskId::from_bytes([3; 16]), attempt: 7 };
    assert_eq!(Message::decode(&bytes.into()), Ok(expected));
    let listening = Bytes::from_static(&[14, 2, 0, 0x81, 7]);
    assert_eq!(Message::decode(&listening), Ok(Message::Listening {}));
    assert_eq!(Message::decode(&Bytes::from_static(&[77, 0, 0])), Err(MessageError::UnknownType(77)));
}

#[test]
fn what_is_over_its_limit_is_refused() {
    let note = Bytes::from(vec![0; MAX_PROGRESS_LEN + 1]);
    let progress = Message::Progress { task: TaskId::from_bytes([0; 16]), attempt: 0, note };
    assert_eq!(Message::decode(&progress.encode()), Err(MessageError::TooLong("a progress note")));
    let beat = Beat { task: TaskId::from_bytes([0; 16]), attempt: 0, finished: None };
    let beats = Message::Beats { boot: 0, beats: vec![beat; MAX_BEATS + 1], answer: true };
    assert_eq!(Message::decode(&beats.encode()), Err(MessageError::TooLong("a batch of beats")));
    let full = Message::Beats {
        boot: u64::MAX,
        beats: vec![Beat { attempt: u32::MAX, finished: Some(u64::MAX), ..beat }; MAX_BEATS],
        answer: true,
    };
    assert_eq!(Message::decode(&full.encode()), Ok(full));
    let mut huge = vec![9, 0xff, 0xff];
    huge.extend(vec![0; 0xffff]);
    assert_eq!(Message::decode(&huge.into()), Err(MessageError::TooLong("the header")));
}

#[test]
fn the_largest_submit_fits_a_reliable_message() {
    let message = Message::Submit(Submit {
        large: false,
        task: TaskId::from_bytes([0xff; 16]),
        attempt: u32::MAX,
        reach: u16::MAX,
        hops: u8::MAX,
        submitter: PublicKey::from_bytes([0xff; 32]),
        kind: "k".repeat(MAX_KIND_LEN),
        key: vec![0; MAX_KEY_LEN].into(),
        priority: Priority::High,
        life: MAX_LIFE,
        ask: true,
        force: true,
        parent: Some(TaskId::from_bytes([0xff; 16])),
        anywhere: true,
        warrant: None,
        payload: vec![0; MAX_PAYLOAD_LEN].into(),
    });
    let bytes = message.encode();
    assert!(bytes.len() <= 16 * 1024 * 1024);
    assert_eq!(Message::decode(&bytes), Ok(message));
}

#[test]
fn the_layout_on_the_wire_is_the_documented_one() {
    let task = TaskId::from_bytes([3; 16]);
    let key = PublicKey::from_bytes([5; 32]);
    let fetch = [&[9, 19, 0, 0x82, 0x50][..], &[3; 16], &[7]].concat();
    assert_eq!(Message::Fetch { task, attempt: 7 }.encode(), fetch);
    let token = Epoch { counter: 1, owner: key };
    let accepted =
        [&[2, 57, 0, 0x84, 0x50][..], &[3; 16], &[7, 0x18, 42, 0x82, 1, 0x58, 32], &[5; 32]].concat();
    assert_eq!(Message::Accepted { task, attempt: 7, boot: 42, token, lanes: None }.encode(), accepted);
    let lanes = Some(Lanes { count: 4, pure: true });
    let accepted = [&[2, 60, 0, 0x85][..], &accepted[4..], &[0x82, 4, 0xf5]].concat();
    assert_eq!(Message::Accepted { task, attempt: 7, boot: 42, token, lanes }.encode(), accepted);
    let submit = Message::Submit(Submit {
        task,
        attempt: 1,
        reach: 2,
        hops: 3,
        submitter: key,
        kind: "k".into(),
        key: Bytes::from_static(b"x"),
        priority: Priority::Normal,
        life: Duration::from_millis(10),
        ask: true,
        force: false,
        parent: None,
        anywhere: false,
        large: false,
        warrant: None,
        payload: Bytes::from_static(b"PAYLOAD"),
    });
    // The absent last field is left out: 11 of 12.
    let header = [&[0x8b, 0x50][..], &[3; 16], &[1, 2, 3, 0x58, 32], &[5; 32]].concat();
    let header = [&header[..], &[0x61, b'k', 0x41, b'x', 1, 10, 0xf5, 0xf4]].concat();
    let expected = [&[1, header.len() as u8, 0][..], &header, b"PAYLOAD"].concat();
    assert_eq!(submit.encode(), expected);
}

#[test]
fn every_error_and_every_refusal_has_its_code() {
    let (text, hash) = (|| "t".to_owned(), [7; 32]);
    let token = Epoch { counter: 1, owner: PublicKey::from_bytes([5; 32]) };
    let errors = [
        (1, 3, JobError::permanent("t")),
        (2, 3, JobError::retriable("t")),
        (3, 3, JobError::Panicked(text())),
        (4, 3, JobError::TimedOut),
        (5, 3, JobError::UnknownKind(text())),
        (6, 3, JobError::Infeasible(text())),
        (7, 3, JobError::Cancelled),
        (8, 3, JobError::Deadline),
        (9, 3, JobError::DeadLetter { failures: 2, last: text() }),
        (10, 4, JobError::Fenced { current: token }),
        (11, 3, JobError::Conflict),
        (12, 5, JobError::Settled { hash }),
        (13, 3, JobError::TooLarge { len: 2 }),
        (14, 3, JobError::Lost { workers: 2, names: text() }),
    ];
    for (code, fields, error) in errors {
        let bytes = minicbor::to_vec(&error).unwrap();
        assert_eq!(bytes[..2], [0x80 + fields, code], "{error:?}");
        assert_eq!(minicbor::decode::<JobError>(&bytes).unwrap(), error);
    }
    let task = TaskId::from_bytes([3; 16]);
    let reasons = [
        (1, 4, Reason::Busy { retry_after: Duration::from_millis(9) }),
        (2, 4, Reason::UnknownKind),
        (3, 4, Reason::Misrouted),
        (4, 5, Reason::Elsewhere { runner: token.owner }),
        (5, 4, Reason::Conflict),
        (6, 6, Reason::Settled { hash }),
        (7, 7, Reason::Failed { error: JobError::TimedOut }),
        (8, 4, Reason::Unknown),
        (9, 4, Reason::HandedBack),
    ];
    for (code, fields, reason) in reasons {
        let bytes = Message::Refused(Refused { task, attempt: 1, reason }).encode();
        assert_eq!((bytes[0], bytes[3], &bytes[21..23]), (5, 0x80 + fields, &[1, code][..]), "{code}");
    }
}

#[test]
fn a_code_without_its_field_is_refused_and_an_absent_flag_is_off() {
    // A settled error without its hash, an unknown code, and a text over its limit.
    for error in [(12, String::new(), 0), (15, String::new(), 0), (1, "t".repeat(MAX_ERROR_TEXT_LEN + 1), 0)]
    {
        assert!(minicbor::decode::<JobError>(&minicbor::to_vec(error).unwrap()).is_err());
    }
    let beats = Message::Beats { boot: 1, beats: Vec::new(), answer: false };
    assert_eq!(beats.encode()[..], [3, 3, 0, 0x82, 1, 0x80]);
    let null = Bytes::from_static(&[3, 4, 0, 0x83, 1, 0x80, 0xf6]);
    assert_eq!(Message::decode(&null), Ok(beats));
}
