use proptest::prelude::*;

use super::*;

fn names(features: impl Iterator<Item = impl std::borrow::Borrow<Feature>>) -> Vec<&'static str> {
    features.map(|feature| feature.borrow().name).collect()
}

fn parse(text: &str) -> Result<CpuModel, CpuModelError> {
    text.parse()
}

#[test]
fn names_are_unique_and_tables_speak_of_them_alone() {
    let mut seen = std::collections::HashSet::new();
    for feature in all() {
        assert!(seen.insert(letters(feature.name)), "{} twice", feature.name);
        assert_eq!(find(feature.name), Some(feature));
    }
    for (alias, name) in ALIASES {
        assert!(!seen.contains(&letters(alias)), "{alias} is a name itself");
        assert!(seen.contains(&letters(name)), "{alias} for {name}");
    }
    for (dependant, required) in REQUIREMENTS {
        for name in [dependant, required] {
            assert_eq!(find(name).map(|feature| feature.name), Some(*name));
        }
    }
}

#[test]
fn linux_and_qemu_spellings_mean_the_same() {
    for (one, other) in [
        ("sse4_1", "SSE4.1"),
        ("tsc_deadline_timer", "tsc-deadline"),
        ("avx512_vnni", "avx512vnni"),
        ("pni", "sse3"),
        ("constant_tsc", "invtsc"),
        ("lahf_lm", "lahf-lm"),
    ] {
        assert_eq!(find(one), find(other));
        assert!(find(one).is_some());
    }
    let kvmclock = find("kvmclock").unwrap();
    assert_eq!((kvmclock.leaf, kvmclock.mask), (0x4000_0001, 0b1001));
    let smap = find("smap").unwrap();
    assert_eq!(
        (smap.leaf, smap.register, smap.mask),
        (7, Register::Ebx, 1 << 20)
    );
}

#[test]
fn what_is_taken_away_takes_its_dependants_along() {
    let model = parse("host,-avx512f,+rdrand").unwrap();
    assert_eq!(names(model.added()), ["rdrand"]);
    let removed = names(model.removed());
    assert_eq!(removed[0], "avx512f");
    assert!(removed.contains(&"avx512_vnni") && removed.contains(&"avx512_bf16"));
    assert!(!removed.contains(&"avx2"));
    let removed = names(parse("host,-xsave").unwrap().removed().copied());
    for name in [
        "avx",
        "avx2",
        "fma",
        "avx512_fp16",
        "xsaveopt",
        "amx_bf16",
        "pku",
    ] {
        assert!(removed.contains(&name), "{name}");
    }
    assert!(!removed.contains(&"sse4_2"));
}

#[test]
fn mistakes_are_named() {
    assert_eq!(
        parse("host,+avx21").unwrap_err().to_string(),
        "unknown CPU feature 'avx21': did you mean 'avx2'?"
    );
    assert_eq!(
        parse("host,-flying_carpet").unwrap_err().to_string(),
        "unknown CPU feature 'flying_carpet'"
    );
    assert_eq!(
        parse("qemu64").unwrap_err().to_string(),
        "unknown CPU model 'qemu64': the one there is is 'host', as in host,-avx2"
    );
    assert_eq!(
        parse("host,avx2").unwrap_err().to_string(),
        "'avx2' is neither +feature nor -feature"
    );
    assert_eq!(
        parse("host,+sse3,-pni").unwrap_err(),
        CpuModelError::NamedTwice { name: "pni" }
    );
    assert_eq!(
        parse("host,+avx2,-xsave").unwrap_err().to_string(),
        "+avx2 cannot be had with -xsave"
    );
    for text in ["", "host,", "host,+", "host,-"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_a_model_or_an_error(text in ".{0,40}", rest in "host(,[+-][a-z0-9_]{1,8}){0,3}") {
        let _: Result<CpuModel, _> = parse(&text);
        if let Ok(model) = parse(&rest) {
            prop_assert_eq!(parse(&model.to_string()), Ok(model));
        }
    }

    #[test]
    fn a_model_reads_back_as_it_is_written(picked in prop::collection::vec(0usize..500, 0..8)) {
        let features: Vec<_> = all().collect();
        let mut model = CpuModel::default().to_string();
        for number in picked {
            model.push_str(",-");
            model.push_str(features[number % features.len()].name);
        }
        match parse(&model) {
            Ok(parsed) => {
                prop_assert_eq!(parsed.to_string(), model);
                // Nothing that is left needs something that is gone.
                let removed = names(parsed.removed());
                for (dependant, required) in REQUIREMENTS {
                    prop_assert!(!removed.contains(required) || removed.contains(dependant));
                }
            }
            Err(error) => {
                let twice = matches!(error, CpuModelError::NamedTwice { .. });
                prop_assert!(twice);
            }
        }
    }
}
