//! The fuzzer's seeds, crashes that it once found among them, through the same
//! properties: covered also where there is no fuzzer (`fuzz/run` has it).

use std::{fs, path::Path};

#[path = "../fuzz/properties.rs"]
mod properties;

#[test]
fn every_seed_holds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, property) in properties::ALL {
        let mut count = 0;
        for entry in fs::read_dir(seeds.join(target)).expect("seeds of each target") {
            let path = entry.expect("an entry").path();
            let seed = fs::read(&path).expect("readable");
            eprintln!("{}", path.display());
            property(&seed);
            // Cut short and with a byte changed: the neighbours that a fuzzer
            // would try first.
            for at in 0..seed.len().min(512) {
                property(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                property(&changed);
            }
            count += 1;
        }
        assert!(count >= 3, "{target} has {count} seeds");
    }
}

/// Each target is run by the script and is a binary of the fuzz workspace.
#[test]
fn every_property_is_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("readable");
    let script = fs::read_to_string(root.join("run")).expect("readable");
    for (target, _) in properties::ALL {
        assert!(
            manifest.contains(&format!("name = \"{target}\"")),
            "{target}"
        );
        let call =
            fs::read_to_string(root.join(format!("fuzz_targets/{target}.rs"))).expect("a target");
        assert!(
            call.contains(&format!("tidemark_fuzz::{target}(data)")),
            "{call}"
        );
        assert!(
            script
                .lines()
                .any(|line| line.starts_with("all=(") && line.contains(target)),
            "{target}"
        );
    }
}
