use proptest::prelude::*;

use super::*;

fn hello() -> Hello {
    Hello {
        abi_min: 1,
        abi_max: 2,
        features: 1 << 40,
        language: "python".into(),
        name: "wörker 1".into(),
        pool: "main".into(),
        generation: 3,
        token: u64::MAX,
        slots: 1024,
        concurrency: 1000,
        window: 16,
        pid: 4711,
        streams: 12,
    }
}

fn all() -> Vec<Control> {
    vec![
        Control::Hello(hello()),
        Control::Welcome(Welcome {
            abi: (1, 7),
            features: 5,
            lane_id: 9,
            rings: 2,
            slots: 64,
            request_capacity: 1 << 18,
            response_capacity: 1 << 17,
        }),
        Control::Error("no".into()),
        Control::Ready,
        Control::Failed {
            reason: "ImportError".into(),
            permanent: true,
        },
        Control::Drain {
            left: Some(Duration::from_millis(2500)),
        },
        Control::Draining,
        Control::Drained,
        Control::File {
            owner: 3,
            slot: 77,
            generation: 1 << 31,
        },
        Control::Ask,
        Control::State {
            attached: false,
            why: "nobody is there".into(),
        },
    ]
}

#[test]
fn packets_survive_the_way_and_tolerate_what_is_appended() {
    for packet in all() {
        let mut bytes = packet.encode();
        assert_eq!(Control::decode(&bytes).as_ref(), Ok(&packet));
        bytes.extend_from_slice(b"later");
        let len = (bytes.len() - HEADER) as u16;
        bytes[6..8].copy_from_slice(&len.to_le_bytes());
        assert_eq!(Control::decode(&bytes), Ok(packet));
    }
}

#[test]
fn cut_packets_are_refused_with_what_is_missing() {
    for packet in all() {
        let bytes = packet.encode();
        for end in 0..bytes.len() {
            let mut cut = bytes[..end].to_vec();
            assert!(Control::decode(&cut).is_err());
            // Without what was appended it is whole.
            let is_older = match packet {
                Control::Hello(_) => end + 2 == bytes.len(),
                Control::Drain { .. } => end == HEADER,
                _ => false,
            };
            if end >= HEADER && !is_older {
                cut[6..8].copy_from_slice(&((end - HEADER) as u16).to_le_bytes());
                let error = Control::decode(&cut).unwrap_err().to_string();
                assert!(error.starts_with("a control packet ends before"), "{error}");
            }
        }
    }
}

#[test]
fn a_drain_need_not_say_how_much_time_is_left() {
    let packet = Control::Drain { left: None };
    assert_eq!(packet.encode().len(), HEADER);
    assert_eq!(Control::decode(&packet.encode()), Ok(packet));
    let for_ever = Control::Drain {
        left: Some(Duration::from_secs(1 << 40)),
    };
    let Ok(Control::Drain { left: Some(left) }) = Control::decode(&for_ever.encode()) else {
        panic!("decodes");
    };
    assert_eq!(left, Duration::from_millis(u32::MAX.into()));
}

#[test]
fn long_texts_are_cut_at_a_character() {
    let reason = "ä".repeat(MAX_CONTROL_TEXT) + "x";
    let packet = Control::Failed {
        reason,
        permanent: false,
    };
    let Ok(Control::Failed { reason, .. }) = Control::decode(&packet.encode()) else {
        panic!("decodes");
    };
    assert_eq!(reason.len(), MAX_CONTROL_TEXT);
}

#[test]
fn a_refusal_names_both_versions_and_the_remedy() {
    assert_eq!(choose_abi(&hello()), Ok(ABI));
    let mut newer = hello();
    newer.abi_min = 2;
    newer.abi_max = 3;
    let text = choose_abi(&newer).unwrap_err();
    assert!(text.contains("speaks bus ABI 1") && text.contains("2 to 3"));
    assert!(text.contains("upgrade toolb on the engine's side"));
    newer.abi_min = 0;
    newer.abi_max = 0;
    let text = choose_abi(&newer).unwrap_err();
    assert!(text.contains("worker's environment"), "{text}");
}

proptest! {
    #[test]
    fn decoding_never_panics(kind in 0u8..14, body in proptest::collection::vec(any::<u8>(), 0..120)) {
        let mut packet = MAGIC.to_vec();
        packet.extend_from_slice(&[kind, 0]);
        packet.extend_from_slice(&(body.len() as u16).to_le_bytes());
        packet.extend_from_slice(&body);
        let _ = Control::decode(&packet);
        let _ = Control::decode(&body);
    }
}
