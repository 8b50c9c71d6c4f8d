//! LLVM's files: the raw profiles that runs leave, and the map of regions that the program carries.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use llvm_profparser::instrumentation_profile::types::InstrumentationProfile;
use llvm_profparser::{CoverageMapping, parse};

use crate::lines::Region;

/// The sources whose lines count, from the repository's root on.
const SOURCES: &str = "nurl/src";

/// The regions of each file below [`SOURCES`], by the file's name from `root` on. A function without a caller has regions
/// too, none of which is reached; of a generic function, a region is reached if one of its instances reached it.
pub(crate) fn regions(
    program: &Path,
    profiles: &Path,
    root: &Path,
) -> anyhow::Result<BTreeMap<String, Vec<Region>>> {
    let mut merged = InstrumentationProfile::default();
    for entry in fs::read_dir(profiles).with_context(|| profiles.display().to_string())? {
        let path = entry?.path();
        // Into an empty one at first: a profile has a record for each copy of a function that the compiler made, and only a
        // merger adds them.
        merged.merge(&parse(&path).with_context(|| format!("{} can't be read", path.display()))?);
    }
    ensure!(!merged.is_empty(), "no run left a profile in {}", profiles.display());
    let programs = [program.to_owned()];
    let sources = root.join(SOURCES);
    let report = CoverageMapping::new(&programs, &merged, false)?
        .generate_subreport(|paths: &[PathBuf]| paths.iter().any(|path| path.starts_with(&sources)))?;

    let mut found = BTreeMap::new();
    for (path, result) in report.files {
        if !path.starts_with(&sources) {
            continue;
        }
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let regions = result.hits.into_iter().map(|(at, count)| Region {
            start: (at.line_start, at.column_start),
            end: (at.line_end, at.column_end),
            is_reached: count > 0,
        });
        found.insert(name, regions.collect());
    }
    ensure!(!found.is_empty(), "{} has no map of {}", program.display(), sources.display());
    Ok(found)
}
