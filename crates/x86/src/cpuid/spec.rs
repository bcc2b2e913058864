//! What a user asks of a processor: `model,+feature,-feature`.

use super::feature::{Feature, FeatureSet};
use super::named::{MODELS, Named, OPTIONAL, PARAVIRT};

/// Why there is no such processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuModelError {
    /// No model has that name.
    #[error("there is no CPU model {0:?}; there are {choices}", choices = models().join(", "))]
    UnknownModel(String),
    /// No feature has that name.
    #[error("there is no CPU feature {0:?}; there are {choices}", choices = names(Feature::all()))]
    UnknownFeature(String),
    /// An element is not `+feature` or `-feature`.
    #[error("{0:?} is neither +feature nor -feature, as what follows a CPU model must be")]
    Syntax(String),
    /// The engine can't run these features, which are asked for by name, on this host.
    #[error("this engine can't run these CPU features on this host: {features}; it can {choices}")]
    UnsupportedFeature {
        /// The features, by commas.
        features: String,
        /// Those that can be had.
        choices: String,
    },
    /// The engine can't run these features of a model on this host.
    #[error(
        "the CPU model {model} has features that this engine can't run on this host: {features}; \
         leave them out ({without}) or take one of the models {choices}"
    )]
    Unsupported {
        /// The model asked for.
        model: String,
        /// The features, by commas.
        features: String,
        /// What leaves them out.
        without: String,
        /// Models that can be had.
        choices: String,
    },
    /// A feature is asked for together with the removal of one that it needs.
    #[error("+{feature} can't be had when -{without} leaves out what it needs")]
    Contradiction {
        /// The feature asked for.
        feature: &'static str,
        /// What was to be left out.
        without: String,
    },
    /// A feature of every processor.
    #[error("{0} can't be left out: the engine has no processor without it")]
    Fixed(&'static str),
}

fn names(features: impl IntoIterator<Item = Feature>) -> String {
    features
        .into_iter()
        .map(Feature::name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Names of all models.
pub fn models() -> Vec<&'static str> {
    let named = MODELS.iter().flat_map(|model| model.names.iter().copied());
    ["host", "max"].into_iter().chain(named).collect()
}

/// A processor as a user describes it.
#[derive(Clone, Debug)]
pub struct CpuSpec {
    name: String,
    /// `None`: all that the engine can run on the host.
    pub(super) base: Option<&'static Named>,
    plus: Vec<Feature>,
    minus: Vec<Feature>,
}

impl CpuSpec {
    /// The host's processor.
    pub fn host() -> Self {
        Self {
            name: "host".to_owned(),
            base: None,
            plus: Vec::new(),
            minus: Vec::new(),
        }
    }

    /// Reads `model,+feature,-feature`; the case of names does not matter.
    ///
    /// # Errors
    /// [`CpuModelError`] for a name that does not exist, and for other punctuation.
    pub fn parse(text: &str) -> Result<Self, CpuModelError> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let same = |other: &&str| other.eq_ignore_ascii_case(name);
        let base = if ["host", "max"].iter().any(same) {
            None
        } else {
            let found = MODELS.iter().find(|model| model.names.iter().any(same));
            Some(found.ok_or_else(|| CpuModelError::UnknownModel(name.to_owned()))?)
        };
        let mut spec = Self {
            name: name.to_owned(),
            base,
            ..Self::host()
        };
        for part in parts {
            let (list, name) = if let Some(name) = part.strip_prefix('+') {
                (&mut spec.plus, name)
            } else if let Some(name) = part.strip_prefix('-') {
                (&mut spec.minus, name)
            } else {
                return Err(CpuModelError::Syntax(part.to_owned()));
            };
            if name.eq_ignore_ascii_case("kvm") {
                list.extend(PARAVIRT);
                continue;
            }
            let feature = Feature::named(name);
            list.push(feature.ok_or_else(|| CpuModelError::UnknownFeature(name.to_owned()))?);
        }
        Ok(spec)
    }

    /// The features of the processor, of those that can be had: `offered`.
    ///
    /// `+feature` brings what the feature needs, `-feature` takes away what needs it.
    ///
    /// # Errors
    /// [`CpuModelError`] for a feature that is not offered, and for a contradiction.
    pub fn features(&self, offered: &FeatureSet) -> Result<FeatureSet, CpuModelError> {
        let wanted = self.wanted(offered)?;
        let missing = wanted.beyond(offered);
        if missing.is_empty() {
            return Ok(wanted);
        }
        let asked: Vec<_> = missing
            .iter()
            .copied()
            .filter(|f| self.plus.contains(f))
            .collect();
        if !asked.is_empty() {
            return Err(CpuModelError::UnsupportedFeature {
                features: names(asked),
                choices: names(offered.beyond(&FeatureSet::EMPTY)),
            });
        }
        let without: Vec<_> = missing.iter().map(|f| format!("-{}", f.name())).collect();
        Err(CpuModelError::Unsupported {
            model: self.name.clone(),
            features: names(missing),
            without: without.join(","),
            choices: runnable(offered).join(", "),
        })
    }

    /// The features asked for, whether they can be had or not.
    fn wanted(&self, offered: &FeatureSet) -> Result<FeatureSet, CpuModelError> {
        let mut wanted = self.base.map_or(*offered, |model| model.features);
        for &feature in PARAVIRT {
            wanted.remove(feature);
        }
        for feature in OPTIONAL.beyond(offered) {
            wanted.remove(feature);
        }
        for &feature in &self.plus {
            wanted.add_with_needs(feature);
        }
        for &feature in &self.minus {
            if feature == Feature::FPU {
                return Err(CpuModelError::Fixed(feature.name()));
            }
            wanted.remove(feature);
        }
        wanted.drop_unmet();
        if let Some(feature) = self.plus.iter().find(|&&feature| !wanted.has(feature)) {
            let without: Vec<_> = self.minus.iter().map(|feature| feature.name()).collect();
            return Err(CpuModelError::Contradiction {
                feature: feature.name(),
                without: without.join(" or -"),
            });
        }
        Ok(wanted)
    }
}

/// Names of the models whose features can all be had.
pub fn runnable(offered: &FeatureSet) -> Vec<&'static str> {
    let runs = |name: &&str| {
        let base = MODELS.iter().find(|model| model.names.contains(name));
        let spec = CpuSpec {
            base,
            ..CpuSpec::host()
        };
        spec.wanted(offered)
            .is_ok_and(|wanted| wanted.beyond(offered).is_empty())
    };
    models().into_iter().filter(runs).collect()
}
