//! Checks that hold for every format version: names, files, and that towers and spaces fit together.

use std::collections::BTreeSet;

use super::{Manifest, SpaceSpec, Takes, TowerSpec, ensure};
use crate::types::{Modality, Space};

/// Most bytes of one clip's frames.
const MAX_FRAMES_BYTES: usize = 64 << 30;

impl Manifest {
    pub(super) fn check(&self) -> Result<(), String> {
        ensure(is_plain_name(&self.name), || {
            "`name` must be 1-128 characters without control characters".into()
        })?;
        self.check_spaces()?;
        for tower in &self.towers {
            self.check_tower(tower)?;
        }
        self.check_providers()?;
        self.check_agreement()?;
        let bound = self.goldens.max_one_minus_cosine;
        ensure(bound > 0.0 && bound <= 0.01, || {
            format!("goldens.max_one_minus_cosine must be above 0 and at most 0.01, got {bound}")
        })?;
        self.check_files()
    }

    fn check_files(&self) -> Result<(), String> {
        for (name, digest) in &self.files {
            ensure(is_inside(name), || format!("`files`: {name:?} is not a plain path inside the bundle"))?;
            let hex = digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            ensure(hex, || format!("`files`: {name:?} has no lower-case SHA-256"))?;
        }
        let towers = self.towers.iter().map(|tower| tower.file.as_str());
        let tokenizers = self.towers.iter().filter_map(TowerSpec::text).map(|text| text.tokenizer());
        let bank = self.bank.iter().map(|bank| bank.file.as_str());
        for name in towers.chain(tokenizers).chain(bank).chain([self.goldens.file.as_str()]) {
            ensure(is_inside(name), || format!("{name:?} is not a plain path inside the bundle"))?;
            ensure(self.files.contains_key(name), || format!("{name:?} is used but not listed in `files`"))?;
        }
        Ok(())
    }

    fn check_spaces(&self) -> Result<(), String> {
        ensure(!self.spaces.is_empty(), || "`spaces` is empty".into())?;
        check_space_names(self.spaces.iter().map(|space| &space.name))?;
        for space in &self.spaces {
            let name = &space.name;
            ensure((1..=1 << 16).contains(&space.dim), || format!("space `{name}`: dim {}", space.dim))?;
            for dim in &space.dims {
                ensure((1..space.dim).contains(dim), || {
                    format!("space `{name}`: dims must be from 1 to below {}, got {dim}", space.dim)
                })?;
            }
            ensure(!space.members.is_empty(), || format!("space `{name}` has no members"))?;
            for member in &space.members {
                ensure(self.takes(*member), || {
                    format!("space `{name}` has {member} as a member, but there is no {member} tower")
                })?;
            }
        }
        Ok(())
    }

    fn check_tower(&self, tower: &TowerSpec) -> Result<(), String> {
        let name = &tower.name;
        // ort panics on an empty name.
        let named = tower.inputs.iter().map(|input| &input.name).chain(tower.outputs.iter().map(|o| &o.name));
        ensure(named.into_iter().all(|name| !name.is_empty() && !name.contains('\0')), || {
            format!("towers.{name} has an empty input or output name")
        })?;
        let mut inputs = BTreeSet::new();
        for input in &tower.inputs {
            ensure(inputs.insert(&input.name), || {
                format!("towers.{name}: two inputs have the name `{}` in the graph", input.name)
            })?;
        }
        ensure(tower.row_len() <= MAX_FRAMES_BYTES, || {
            format!("towers.{name}: one input would have {} values", tower.row_len())
        })?;
        ensure(tower.precisions.contains(&tower.precision), || {
            format!(
                "towers.{name}.precision must be one of its `precisions`, got {}",
                tower.precision.as_str()
            )
        })?;
        for output in &tower.outputs {
            for space in &output.spaces {
                let known = self.space(space).filter(|known| known.members.contains(&tower.modality));
                let known = known.ok_or_else(|| {
                    format!(
                        "towers.{name}.outputs names the space `{space}`, but {} is not a member of it",
                        tower.modality
                    )
                })?;
                ensure(known.dim == output.dim, || {
                    format!(
                        "towers.{name}.outputs: the spaces of `{}` have the dims {} and {}",
                        output.name, output.dim, known.dim
                    )
                })?;
            }
        }
        ensure(!tower.outputs.is_empty(), || {
            format!(
                "towers.{name}.outputs must name at least one space that has {} as a member",
                tower.modality
            )
        })
    }

    /// Whether each member of each space has exactly one tower that computes its vectors.
    fn check_providers(&self) -> Result<(), String> {
        for space in &self.spaces {
            for member in &space.members {
                let names = self.providers(space, *member);
                match names.as_slice() {
                    [_] => {}
                    [] => return Err(self.lacks(&space.name, *member)),
                    [first, second, ..] => {
                        return Err(format!(
                            "towers.{first} and towers.{second} both compute vectors of {member} in space `{}`",
                            space.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn providers(&self, space: &SpaceSpec, member: Modality) -> Vec<&str> {
        let own = self.of_modality(member).filter(|tower| tower.serves(&space.name));
        let own = own.map(|tower| tower.name.as_str());
        let inflating = self.inflating.iter().filter(|inflating| {
            let tower = self.towers.get(inflating.tower);
            member == Modality::Image && tower.is_some_and(|tower| tower.serves(&space.name))
        });
        own.chain(inflating.map(|inflating| inflating.name.as_str())).collect()
    }

    fn lacks(&self, space: &Space, member: Modality) -> String {
        let only_inflates = self.of_modality(member).next().is_none();
        if only_inflates {
            return format!(
                "space `{space}` has image as a member but not video, which computes its vectors"
            );
        }
        let names: Vec<&str> = self.of_modality(member).map(|tower| tower.name.as_str()).collect();
        format!(
            "towers.{}.outputs must name every space that has {member} as a member; `{space}` is missing",
            names.join(" or towers.")
        )
    }

    /// A clip is prepared once, so all towers of one modality must take the same.
    fn check_agreement(&self) -> Result<(), String> {
        for modality in [Modality::Video, Modality::Image, Modality::Audio] {
            let mut of_modality = self.of_modality(modality);
            let Some(first) = of_modality.next() else { continue };
            for other in of_modality {
                ensure(first.takes == other.takes, || {
                    format!(
                        "towers.{} and towers.{} take {modality} with different `preprocessing`; a bundle can preprocess a modality in only one way",
                        first.name, other.name
                    )
                })?;
            }
        }
        let own = self.of_modality(Modality::Image).next();
        for inflating in &self.inflating {
            let tower = self.towers.get(inflating.tower);
            ensure(tower.is_some_and(|tower| matches!(tower.takes, Takes::Video { .. })), || {
                format!("towers.{}: only an image can inflate the video tower", inflating.name)
            })?;
            ensure(own.is_none_or(|own| own.picture() == tower.and_then(TowerSpec::picture)), || {
                format!(
                    "towers.{} would take pictures with other `preprocessing` than the image tower",
                    inflating.name
                )
            })?;
        }
        Ok(())
    }
}

pub(super) fn check_space_names<'a>(spaces: impl Iterator<Item = &'a Space>) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for name in spaces {
        ensure(is_plain_name(name.as_str()), || format!("`spaces`: bad name {:?}", name.as_str()))?;
        ensure(names.insert(name), || format!("`spaces`: `{name}` appears twice"))?;
    }
    Ok(())
}

fn is_plain_name(name: &str) -> bool {
    (1..=128).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// A relative path of plain names: not absolute, no `..`, nothing that other systems interpret differently.
pub(crate) fn is_inside(name: &str) -> bool {
    name.len() <= 512
        && !name.contains(['\\', '\0', ':'])
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
