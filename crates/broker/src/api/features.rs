//! UpdateFeatures: features have one level each, which is in force.

use kafka::error::ErrorCode;
use kafka::messages::update_features::{
    FeatureUpdateKey, UpdatableFeatureResult, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

use super::versions::FEATURES;
use crate::dispatch::Call;

/// Up to this version, each feature has a result of its own.
const RESULTS_UP_TO: i16 = 1;
const UPGRADE: i8 = 1;
const UNSAFE_DOWNGRADE: i8 = 3;

pub(crate) async fn update(call: Call, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let wrong = request.feature_updates.iter().find_map(|one| {
        let why = wrong(one)?;
        Some(format!(
            "Invalid update version {} for feature {}. {why}",
            one.max_version_level, one.feature
        ))
    });
    if let Some(why) = wrong {
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some(format!(
                "The update failed for all features since the following feature had an error: {why}"
            )),
            ..UpdateFeaturesResponse::default()
        };
    }
    let done = |one: FeatureUpdateKey| UpdatableFeatureResult {
        feature: one.feature,
        error_code: ErrorCode::None.code(),
        error_message: None,
    };
    UpdateFeaturesResponse {
        error_message: None,
        results: match call.version {
            ..=RESULTS_UP_TO => request.feature_updates.into_iter().map(done).collect(),
            _ => Vec::new(),
        },
        ..UpdateFeaturesResponse::default()
    }
}

/// Says why a feature cannot be at the level that is wanted.
fn wrong(wanted: &FeatureUpdateKey) -> Option<String> {
    let level = wanted.max_version_level;
    if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&wanted.upgrade_type) {
        return Some("The controller does not support the given upgrade type.".into());
    }
    if level < 0 {
        return Some("A feature version cannot be less than 0.".into());
    }
    match FEATURES.iter().find(|(name, _)| *name == wanted.feature) {
        None => Some("The broker does not support this feature.".into()),
        Some((_, highest)) if level > *highest => {
            Some(format!("The broker only supports versions 0-{highest}."))
        }
        Some((_, highest)) if level < *highest => {
            Some("The broker does not go back to an earlier version.".into())
        }
        Some(_) => None,
    }
}
